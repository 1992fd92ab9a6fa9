"""Checks a dataset before training: every file is decoded once, and all problems are reported together."""

from __future__ import annotations

import hashlib
import reprlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
from tqdm import tqdm

from condseg_sdk.data.check_report import DatasetReport, SplitStatistics
from condseg_sdk.data.duplicates import near_duplicates
from condseg_sdk.data.examine import PairStats, Rejected, examine
from condseg_sdk.data.pairs import SPLITS, Dataset, Pair, Problem, problems_of
from condseg_sdk.data.plausibility import implausible
from condseg_sdk.data.sizes import Size, size_agreement
from condseg_sdk.data.training_digests import TrainingDigests
from condseg_sdk.errors import OptionError
from condseg_sdk.images.bit_depth import BitDepth, common_depth
from condseg_sdk.prefetch import DECODERS, prefetch_map, worker_threads
from condseg_sdk.words import pluralize

__all__ = ["check_dataset"]

FEW_TRAINING_PAIRS = 20
FEW_VALIDATION_PAIRS = 5
INVERTED_BORDER, INVERTED_SHARE = 0.9, 0.5  # share of foreground along the edge of the image, and in all of it
DIM = 4  # bits: an image that leaves so many bits of the dataset unused is almost black
RARE = 0.1  # masks that differ in kind from the rest are probably a mistake if they are this few


def check_dataset(
    dataset: Dataset,
    *,
    bits: int | None = None,
    trained_on: TrainingDigests | None = None,
    progress: bool = False,
) -> DatasetReport:
    """Decode every image and mask of a dataset once, in threads, and report the problems.

    Args:
        dataset: Dataset, as `open_dataset` returns it.
        bits: Number of bits in use in images with 16-bit values; None to find it from all of them.
        trained_on: Digests of the images that a checkpoint was trained on, as in `Predictor.training_images`: images of
            the validation and test splits that are among them are reported.
        progress: Whether to show a progress bar.

    Returns:
        The report. A dataset with problems raises nothing: `str(report)` is a table of them, and
        `report.raise_if_wrong()` raises the first error.

    Raises:
        OptionError: `dataset` is not a Dataset.

    Example:
        >>> from condseg_sdk import open_dataset
        >>> report = check_dataset(open_dataset("my_dataset"))
        >>> report.raise_if_wrong()
        >>> report.image_sizes
        ((20, 30), (20, 30))
    """
    if not isinstance(dataset, Dataset):
        raise OptionError(
            f"dataset={reprlib.repr(dataset)} must be a Dataset: use check_dataset(open_dataset(...))", option="dataset"
        )
    jobs = [(pair, split) for split in SPLITS for pair in dataset.splits[split]]
    with worker_threads(DECODERS) as pool:
        examined = prefetch_map(partial(examine, bits=bits), jobs, pool=pool, ahead=2 * DECODERS)
        results = list(tqdm(examined, "checking", len(jobs), unit="pair", disable=not progress))
    stats = [result for result in results if isinstance(result, PairStats)]
    rejected = [result for result in results if isinstance(result, Rejected)]
    unreadable = [result.reason for result in rejected if not result.is_mismatch]
    mismatched = [result.reason for result in rejected if result.is_mismatch]
    problems = list(dataset.problems)
    message = "with a file that cannot be used; repair it or remove the pair"
    problems += problems_of("error", "pair", message, unreadable)
    problems += problems_of("error", "mask", "with another aspect ratio than the image; export it again", mismatched)
    for look in CHECKS:
        problems += look(stats)
    if trained_on is not None:
        problems += _trained_on(stats, trained_on)
    content = hashlib.blake2b(b"".join(item.content for item in stats), digest_size=16)
    known = trained_on or TrainingDigests.of([], salt=content.digest())
    sizes = sorted((item.size for item in stats), key=lambda size: size[0] * size[1])
    return DatasetReport(
        layout=dataset.layout,
        splits={
            split: _statistics(dataset.splits[split], [item for item in stats if item.split == split])
            for split in SPLITS
        },
        image_sizes=(sizes[0], sizes[-1]) if sizes else None,
        bits=depth.bits if (depth := _common_depth(stats)) is not None else None,
        mask_kinds=dict(Counter(item.kind for item in stats).most_common()),
        content=content.hexdigest(),
        problems=tuple(sorted(problems, key=lambda problem: problem.severity)),
        left_out=dataset.left_out,
        training_digests=known.extended([item.fingerprint for item in stats if item.split == "train"]),
    )


def _sizes(stats: Sequence[PairStats]) -> list[Problem]:
    turned, scaled, different = [], [], []
    for item in stats:
        agreement = size_agreement(item.size, item.mask_size)
        sizes = f"{item.pair.image} is {_shown(item.size)}, its mask {_shown(item.mask_size)}"
        if agreement == "scaled":
            scaled.append(sizes)
        elif agreement == "different" and item.orientation >= 5 and item.mask_size == item.size[::-1]:
            turned.append(sizes)
        elif agreement == "different":
            different.append(sizes)
    remedy = "rotate the mask, or save the image without the tag"
    return [
        *problems_of("error", "mask", f"drawn on the image as stored, while an EXIF tag rotates it; {remedy}", turned),
        *problems_of(
            "error", "mask", "with another aspect ratio than the image; export it at the image's size", different
        ),
        *problems_of("warning", "mask", "of a different size than the image, resized to fit", scaled),
    ]


def _shown(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _orientations(stats: Sequence[PairStats]) -> list[Problem]:
    """Find rotated images whose masks fit with and without the rotation, so that the sizes show no error."""
    doubtful = [
        str(item.pair.image)
        for item in stats
        if item.orientation not in (0, 1)
        and not item.mask_turned
        and (item.orientation < 5 or item.size[0] == item.size[1])
    ]
    message = "rotated by an EXIF tag that the mask does not have; check that the mask fits the upright image"
    return problems_of("warning", "image", message, doubtful)


def _brightness(stats: Sequence[PairStats]) -> list[Problem]:
    """Report the bits in use in images with 16-bit values, and images that use few of them."""
    depth = _common_depth(stats)
    if depth is None:
        return []
    dim = [
        str(item.pair.image)
        for item in stats
        if item.depth is not None and item.depth.needed <= depth.bits - DIM and depth.bits - DIM >= 8
    ]
    message = f"almost black: they use few of the {depth.bits} bits of the dataset; bring all images to the same bits"
    problems = problems_of("warning", "image", message, dim)
    clipped = [
        f"{item.pair.image} ({item.depth.clipped:.2%} of it)" for item in stats if item.depth and item.depth.clipped
    ]
    message = "with a few pixels above the bits in use, read as white; fine if they are text or a mark"
    problems += problems_of("warning", "image", message, clipped)
    return [Problem("warning", depth.describe()), *problems] if depth.is_guess else problems


def _common_depth(stats: Sequence[PairStats]) -> BitDepth | None:
    """Return the bits that hold the values of all images."""
    return common_depth(item.depth for item in stats if item.depth is not None)


def _regions(stats: Sequence[PairStats]) -> list[Problem]:
    problems = []
    remedy = "masks must be 0 outside the region and not 0 inside it"
    for split in SPLITS[:2]:
        shares = {str(item.pair.mask): item.shape.share for item in stats if item.split == split}
        if shares and not any(shares.values()):
            problems.append(Problem("error", f"no mask of the {split} split has foreground; {remedy}", (*shares,)))
        elif shares and min(shares.values()) == 1:
            problems.append(Problem("error", f"every mask of the {split} split is full; {remedy}", (*shares,)))
    inverted = [
        str(item.pair.mask)
        for item in stats
        if INVERTED_SHARE < item.shape.share < 1 and item.shape.border >= INVERTED_BORDER
    ]
    empty = [str(item.pair.mask) for item in stats if item.shape.share == 0]
    full = [str(item.pair.mask) for item in stats if item.shape.share == 1]
    remedy = "if that is the background, swap black and white"
    return [
        *problems,
        *problems_of("warning", "mask", "without foreground; fine if there is nothing to find in the image", empty),
        *problems_of("warning", "mask", "without background; fine if the region fills the image", full),
        *problems_of("warning", "mask", f"covering the image's edges and most of it; {remedy}", inverted),
    ]


def _meaning(stats: Sequence[PairStats]) -> list[Problem]:
    return implausible([(str(item.pair.mask), item.shape) for item in stats])


def _readings(stats: Sequence[PairStats]) -> list[Problem]:
    """Report remarks on the values of masks, and a few label masks among masks of another kind."""
    remarks: dict[str, list[str]] = defaultdict(list)
    for item in stats:
        if item.remark is not None:
            remarks[item.remark].append(str(item.pair.mask))
    problems = [p for remark, files in remarks.items() for p in problems_of("warning", "mask", remark, files)]
    labels = [str(item.pair.mask) for item in stats if item.kind == "labels"]
    if len(labels) <= RARE * len(stats):
        message = "with several labels, unlike the rest; all labels were read as foreground"
        problems += problems_of("warning", "mask", message, labels)
    return problems


def _same_file(stats: Sequence[PairStats]) -> list[Problem]:
    files = [str(item.pair.image) for item in stats if item.pair.image == item.pair.mask]
    return problems_of("error", "image", "given as its own mask; pass the mask's file", files)


def _blank_images(stats: Sequence[PairStats]) -> list[Problem]:
    files = [str(item.pair.image) for item in stats if item.fingerprint.is_blank]
    return problems_of("warning", "image", "of a single color; remove it if it is broken", files)


def _copies(stats: Sequence[PairStats]) -> list[Problem]:
    """Find copies of a file: across splits they make metrics too optimistic; within a split they do less harm."""
    within: list[str] = []
    across: list[str] = []
    first: dict[bytes, PairStats] = {}
    for item in stats:
        other = first.setdefault(item.digest, item)
        if other is not item:
            line = f"{item.pair.image} ({item.split}) and {other.pair.image} ({other.split})"
            (within if other.split == item.split else across).append(line)
    remedy = "which makes metrics too optimistic; keep one, or pass group_by"
    return [
        *problems_of("error", "image", f"copied into another split, {remedy}", across),
        *problems_of("warning", "image", "copied within one split; keep one", within),
    ]


def _lookalikes(stats: Sequence[PairStats]) -> list[Problem]:
    """Find the same image in two splits, saved again or a frame later."""
    by_split = {split: [item for item in stats if item.split == split] for split in SPLITS}
    files = []
    for one, two in combinations(SPLITS, 2):
        close = near_duplicates([f.fingerprint for f in by_split[one]], [f.fingerprint for f in by_split[two]])
        for a, b in ((by_split[one][i], by_split[two][j]) for i, j in close):
            if a.digest != b.digest:
                files.append(f"{b.pair.image} ({two}) and {a.pair.image} ({one})")
    message = (
        "nearly identical to one of another split (video frames, or an image saved again?), which makes metrics too "
        "optimistic; keep them together with group_by, or remove them"
    )
    return problems_of("warning", "image", message, files)


def _trained_on(stats: Sequence[PairStats], digests: TrainingDigests) -> list[Problem]:
    """Find held-out images that the base was trained on."""
    held_out = [item for item in stats if item.split != "train"]
    matches = digests.matches([item.fingerprint for item in held_out])
    files = [f"{item.pair.image} ({item.split})" for item, known in zip(held_out, matches, strict=True) if known]
    message = "that the base was trained on, by its content, which makes metrics too optimistic; remove it"
    return problems_of("warning", "image", message, files)


def _counts(stats: Sequence[PairStats]) -> list[Problem]:
    count = Counter(item.split for item in stats)
    problems = []
    if count["train"] < FEW_TRAINING_PAIRS:
        message = f"only {pluralize(count['train'], 'pair')} to train on; {FEW_TRAINING_PAIRS} or more are recommended"
        problems.append(Problem("warning", message))
    if count["validation"] < FEW_VALIDATION_PAIRS:
        few = pluralize(count["validation"], "pair")
        message = f"only {few} to validate on, so epoch and threshold are chosen by chance; hold out more, or add pairs"
        problems.append(Problem("warning", message))
    return problems


def _statistics(pairs: Sequence[Pair], stats: Sequence[PairStats]) -> SplitStatistics:
    filled = [item.shape.share for item in stats if item.shape.share > 0]
    groups = {pair.group for pair in pairs if pair.group is not None}
    return SplitStatistics(
        pairs=len(pairs),
        groups=len(groups) or None,
        empty_masks=sum(item.shape.share == 0 for item in stats),
        foreground=float(np.median(filled)) if filled else None,
    )


CHECKS: tuple[Callable[[Sequence[PairStats]], list[Problem]], ...] = (
    _sizes,
    _orientations,
    _brightness,
    _regions,
    _meaning,
    _readings,
    _same_file,
    _blank_images,
    _copies,
    _lookalikes,
    _counts,
)
