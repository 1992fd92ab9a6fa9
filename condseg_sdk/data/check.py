"""The integrity check before the first step: every file is decoded once, and what is wrong is said all at once."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps
from tqdm import tqdm

from condseg_sdk.data.budget import PAIRS_IN_WORK, pair_bytes
from condseg_sdk.data.check_report import DatasetReport, PartStatistics
from condseg_sdk.data.duplicates import Fingerprint, fingerprint, near_duplicates
from condseg_sdk.data.masks import read_mask
from condseg_sdk.data.pairs import SPLITS, Dataset, Pair, Problem, Split, pluralize, problems_of
from condseg_sdk.data.plausibility import MaskShape, describe_shape, implausible
from condseg_sdk.data.regions import SizeMismatchError
from condseg_sdk.data.sizes import Size, size_agreement
from condseg_sdk.errors import CondsegError, ImageError
from condseg_sdk.images.bit_depth import BitDepth, common_depth
from condseg_sdk.images.files import is_deep_color, orientation_of
from condseg_sdk.images.load import open_image, read_image
from condseg_sdk.prefetch import DECODERS, prefetch_map, worker_threads

__all__ = ["check_dataset"]

FEW_TRAINING_PAIRS = 20
FEW_VALIDATION_PAIRS = 5
INVERTED_BORDER, INVERTED_SHARE = 0.9, 0.5  # foreground along the edge of the picture, and in all of it
DIM = 4  # bits: an image that leaves so many of its set's unused is almost black
RARE = 0.1  # masks of another kind than the rest are a slip if they are as few


@dataclass(frozen=True)
class Rejected:
    """A pair that cannot be looked at further.

    Attributes:
        reason: What is wrong, with the file's name.
        is_mismatch: Whether the files are fine and do not fit together.
    """

    reason: str
    is_mismatch: bool = False


@dataclass(frozen=True)
class PairStats:
    """What the check keeps of a pair's files.

    Attributes:
        size, mask_size: (height, width), upright.
        orientation: EXIF's, 1 for upright as stored.
        mask_turned: whether the mask file has an orientation of its own.
        digest: of the image file's bytes.
        content: of these and the mask's pixels.
        depth: The bits in use in an image of 16-bit values.
        shape: the form of the mask.
        kind, remark: how the mask was read.
    """

    pair: Pair
    part: Split
    size: Size
    orientation: int
    digest: bytes
    content: bytes
    depth: BitDepth | None
    fingerprint: Fingerprint
    mask_size: Size
    mask_turned: bool
    shape: MaskShape
    kind: str
    remark: str | None


def check_dataset(dataset: Dataset, *, bits: int | None = None, progress: bool = False) -> DatasetReport:
    """Decode every image and mask once, in threads, and report what is wrong with the set.

    Args:
        dataset: As `open_dataset` gives it.
        bits: Number of bits in use in images with 16-bit values; None to find it from all of them.
        progress: Whether to show a bar on the terminal.

    Returns:
        The report; nothing is raised for a wrong set. `str(report)` is a table, `report.raise_if_wrong()` stops.

    Example:
        >>> check_dataset(open_dataset("my_dataset")).raise_if_wrong()  # doctest: +SKIP
    """
    jobs = [(pair, part) for part in SPLITS for pair in dataset.parts[part]]
    with worker_threads(DECODERS) as pool:
        examined = prefetch_map(partial(_examine, bits=bits), jobs, pool=pool, ahead=2 * DECODERS)
        results = list(tqdm(examined, "checking", len(jobs), unit="pair", disable=not progress))
    facts = [result for result in results if isinstance(result, PairStats)]
    rejected = [result for result in results if isinstance(result, Rejected)]
    unreadable = [result.reason for result in rejected if not result.is_mismatch]
    mismatched = [result.reason for result in rejected if result.is_mismatch]
    problems = list(dataset.problems)
    message = "with a file that cannot be used; repair it or take the pair out"
    problems += problems_of("error", "pair", message, unreadable)
    problems += problems_of("error", "mask", "of other proportions than the image; export it at its size", mismatched)
    for look in CHECKS:
        problems += look(facts)
    sizes = sorted((fact.size for fact in facts), key=lambda size: size[0] * size[1])
    return DatasetReport(
        layout=dataset.layout,
        parts={part: _statistics(dataset.parts[part], [f for f in facts if f.part == part]) for part in SPLITS},
        image_sizes=(sizes[0], sizes[-1]) if sizes else None,
        bits=depth.bits if (depth := _common_depth(facts)) is not None else None,
        mask_kinds=dict(Counter(fact.kind for fact in facts).most_common()),
        content=hashlib.blake2b(b"".join(fact.content for fact in facts), digest_size=16).hexdigest(),
        problems=tuple(sorted(problems, key=lambda problem: problem.severity)),
        left_out=dataset.left_out,
    )


def _examine(job: tuple[Pair, Split], bits: int | None) -> PairStats | Rejected:
    pair, part = job
    try:
        with PAIRS_IN_WORK.reserve(pair_bytes(pair)):
            return _facts(pair, part, bits)
    except SizeMismatchError as error:
        return Rejected(str(error), is_mismatch=True)
    except CondsegError as error:
        return Rejected(str(error))


def _facts(pair: Pair, part: Split, bits: int | None) -> PairStats:
    gray, size, orientation, depth = _look_at(pair.image, bits)
    digest, print_of_image = _digest(pair.image), fingerprint(gray)
    del gray  # a large image and its mask are not in memory at once
    reading = read_mask(pair.mask)
    mask = reading.mask
    return PairStats(
        pair=pair,
        part=part,
        size=size,
        orientation=orientation,
        digest=digest,
        content=hashlib.blake2b(digest + np.packbits(mask).tobytes(), digest_size=16).digest(),
        depth=depth,
        fingerprint=print_of_image,
        mask_size=(mask.shape[0], mask.shape[1]),
        mask_turned=reading.turned,
        shape=describe_shape(mask),
        kind=reading.kind,
        remark=reading.remark,
    )


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); copy it again") from error


def _look_at(path: Path, bits: int | None) -> tuple[NDArray[np.uint8], Size, int, BitDepth | None]:
    """An image's grey values, perhaps smaller than it; its size when upright; its EXIF orientation; the bits in
    use if it has 16-bit values."""
    with open_image(path) as image:
        orientation = orientation_of(image)
        size = image.size if orientation >= 5 else image.size[::-1]
        if image.mode[0] in "IF" or is_deep_color(image):  # 16-bit and float, which Pillow would clip
            with read_image(path, bits=bits) as loaded:
                return loaded.pixels.max(axis=2), size, orientation, loaded.depth
        image.draft("L", (256, 256))  # a JPEG is read to its end, but at down to an eighth of its size
        # Which copies in any case.
        upright = ImageOps.exif_transpose(image) if orientation != 1 else image
        # Straight to gray, Pillow would warn of palettes with transparency.
        plain = upright.convert("RGBA") if upright.has_transparency_data else upright
        return np.asarray(plain.convert("L")), size, orientation, None


def _sizes(facts: Sequence[PairStats]) -> list[Problem]:
    turned, scaled, different = [], [], []
    for fact in facts:
        agreement = size_agreement(fact.size, fact.mask_size)
        sizes = f"{fact.pair.image} is {_shown(fact.size)}, its mask {_shown(fact.mask_size)}"
        if agreement == "scaled":
            scaled.append(sizes)
        elif agreement == "different" and fact.orientation >= 5 and fact.mask_size == fact.size[::-1]:
            turned.append(sizes)
        elif agreement == "different":
            different.append(sizes)
    remedy = "turn the mask, or save the image without the tag"
    return [
        *problems_of("error", "mask", f"drawn on the picture as stored, while an EXIF tag turns it; {remedy}", turned),
        *problems_of("error", "mask", "of other proportions than the image; export it at the image's size", different),
        *problems_of("warning", "mask", "of another size than the image, resized to fit", scaled),
    ]


def _shown(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _orientations(facts: Sequence[PairStats]) -> list[Problem]:
    """Turned images whose masks would fit both ways, so that sizes cannot tell."""
    doubtful = [
        str(fact.pair.image)
        for fact in facts
        if fact.orientation not in (0, 1)
        and not fact.mask_turned
        and (fact.orientation < 5 or fact.size[0] == fact.size[1])
    ]
    message = "turned by an EXIF tag that the mask does not have; check that the mask fits the upright picture"
    return problems_of("warning", "image", message, doubtful)


def _brightness(facts: Sequence[PairStats]) -> list[Problem]:
    """Images of 16-bit values: the bits that were found, and images that use few of them."""
    depth = _common_depth(facts)
    if depth is None:
        return []
    dim = [
        str(fact.pair.image)
        for fact in facts
        if fact.depth is not None and fact.depth.needed <= depth.bits - DIM and depth.bits - DIM >= 8
    ]
    message = f"almost black: of the {depth.bits} bits of the set few are used; bring all images to the same bits"
    problems = problems_of("warning", "image", message, dim)
    clipped = [
        f"{fact.pair.image} ({fact.depth.clipped:.2%} of it)" for fact in facts if fact.depth and fact.depth.clipped
    ]
    message = "with a few pixels above the bits in use, read as white; right if they are a text or a mark"
    problems += problems_of("warning", "image", message, clipped)
    return [Problem("warning", depth.describe()), *problems] if depth.is_guess else problems


def _common_depth(facts: Sequence[PairStats]) -> BitDepth | None:
    """The bits that hold the values of all images."""
    return common_depth(fact.depth for fact in facts if fact.depth is not None)


def _regions(facts: Sequence[PairStats]) -> list[Problem]:
    problems = []
    remedy = "masks must be 0 outside the region and not 0 inside it"
    for part in SPLITS[:2]:
        shares = [fact.shape.share for fact in facts if fact.part == part]
        if shares and not any(shares):
            problems.append(Problem("error", f"no mask of the {part} part has foreground; {remedy}"))
        elif shares and min(shares) == 1:
            problems.append(Problem("error", f"every mask of the {part} part is full; {remedy}"))
    inverted = [
        str(fact.pair.mask)
        for fact in facts
        if INVERTED_SHARE < fact.shape.share < 1 and fact.shape.border >= INVERTED_BORDER
    ]
    empty = [str(fact.pair.mask) for fact in facts if fact.shape.share == 0]
    full = [str(fact.pair.mask) for fact in facts if fact.shape.share == 1]
    remedy = "if that is the background, swap black and white"
    return [
        *problems,
        *problems_of("warning", "mask", "without foreground; right if there is nothing to find in the image", empty),
        *problems_of("warning", "mask", "without background; right if the region fills the image", full),
        *problems_of("warning", "mask", f"covering the picture's edges and most of it; {remedy}", inverted),
    ]


def _meaning(facts: Sequence[PairStats]) -> list[Problem]:
    return implausible([(str(fact.pair.mask), fact.shape) for fact in facts])


def _readings(facts: Sequence[PairStats]) -> list[Problem]:
    """What was odd about the masks' values, and label masks among others."""
    remarks: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        if fact.remark is not None:
            remarks[fact.remark].append(str(fact.pair.mask))
    problems = [p for remark, files in remarks.items() for p in problems_of("warning", "mask", remark, files)]
    labels = [str(fact.pair.mask) for fact in facts if fact.kind == "labels"]
    if len(labels) <= RARE * len(facts):
        message = "with several labels, unlike the rest; all labels were taken for foreground"
        problems += problems_of("warning", "mask", message, labels)
    return problems


def _same_file(facts: Sequence[PairStats]) -> list[Problem]:
    files = [str(fact.pair.image) for fact in facts if fact.pair.image == fact.pair.mask]
    return problems_of("error", "image", "given as its own mask; give the mask's file", files)


def _blank_images(facts: Sequence[PairStats]) -> list[Problem]:
    files = [str(fact.pair.image) for fact in facts if fact.fingerprint.is_blank]
    return problems_of("warning", "image", "of a single color; take it out if it is broken", files)


def _copies(facts: Sequence[PairStats]) -> list[Problem]:
    """The same file twice: in two parts it spoils the scores, within one it does less harm."""
    within: list[str] = []
    across: list[str] = []
    first: dict[bytes, PairStats] = {}
    for fact in facts:
        other = first.setdefault(fact.digest, fact)
        if other is not fact:
            line = f"{fact.pair.image} ({fact.part}) and {other.pair.image} ({other.part})"
            (within if other.part == fact.part else across).append(line)
    remedy = "which makes scores too good; keep one, or give group_by"
    return [
        *problems_of("error", "image", f"copied into another part, {remedy}", across),
        *problems_of("warning", "image", "copied within one part; keep one", within),
    ]


def _lookalikes(facts: Sequence[PairStats]) -> list[Problem]:
    """The same picture in two parts, saved again or a frame later."""
    by_part = {part: [fact for fact in facts if fact.part == part] for part in SPLITS}
    files = []
    for one, two in combinations(SPLITS, 2):
        close = near_duplicates([f.fingerprint for f in by_part[one]], [f.fingerprint for f in by_part[two]])
        for a, b in ((by_part[one][i], by_part[two][j]) for i, j in close):
            if a.digest != b.digest:
                files.append(f"{b.pair.image} ({two}) and {a.pair.image} ({one})")
    message = (
        "much like one of another part (frames of a video, a picture saved again?), which makes scores too good; keep "
        "them together with group_by, or take them out"
    )
    return problems_of("warning", "image", message, files)


def _counts(facts: Sequence[PairStats]) -> list[Problem]:
    count = Counter(fact.part for fact in facts)
    problems = []
    if count["train"] < FEW_TRAINING_PAIRS:
        message = f"only {pluralize(count['train'], 'pair')} to train on; {FEW_TRAINING_PAIRS} or more are wanted"
        problems.append(Problem("warning", message))
    if count["validation"] < FEW_VALIDATION_PAIRS:
        few = pluralize(count["validation"], "pair")
        message = f"only {few} to validate on, so that chance picks epoch and threshold; hold out more, or add pairs"
        problems.append(Problem("warning", message))
    return problems


def _statistics(pairs: Sequence[Pair], facts: Sequence[PairStats]) -> PartStatistics:
    filled = [fact.shape.share for fact in facts if fact.shape.share > 0]
    groups = {pair.group for pair in pairs if pair.group is not None}
    return PartStatistics(
        pairs=len(pairs),
        groups=len(groups) or None,
        empty_masks=sum(fact.shape.share == 0 for fact in facts),
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
