"""Evaluates a predictor on images with masks.

Images are streamed: only their metrics and two small tables of counts are kept. `metrics/` computes the metrics, and
`result.py` summarizes and saves them.
"""

from __future__ import annotations

import logging
import math
import os
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.data import DataSource, Pair, data_name, find_pairs, find_split, read_names, resize_mask
from condseg_sdk.data.examine import image_fingerprint
from condseg_sdk.data.masks import load_mask_of
from condseg_sdk.data.pairs import Dataset, Split
from condseg_sdk.data.recorded_split import recorded_split
from condseg_sdk.environment import describe_environment
from condseg_sdk.errors import DatasetError, OptionError, errors_about
from condseg_sdk.evaluation.image_result import ImageMetrics, ImageResult
from condseg_sdk.evaluation.result import PAPER_SIZE, Evaluation, EvaluationOptions
from condseg_sdk.metrics import score
from condseg_sdk.metrics.calibration import calibration_bins
from condseg_sdk.metrics.error_detection import score_error_detection
from condseg_sdk.metrics.surface import boundary_iou, surface_scores
from condseg_sdk.metrics.threshold_curve import threshold_counts
from condseg_sdk.options import check_choice, check_seed, check_spacing
from condseg_sdk.segmentation import Segmentation, find_regions
from condseg_sdk.weights.hub import local_path
from condseg_sdk.words import pluralize

if TYPE_CHECKING:
    from condseg_sdk.predictor import Predictor

__all__ = ["choose_pairs", "evaluate"]

logger = logging.getLogger("condseg_sdk")

Spacing = tuple[float, float]


def evaluate(
    predictor: Predictor,
    data: Dataset | DataSource,
    *,
    masks: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | str | None = None,
    names: Sequence[str] | str | os.PathLike[str] | None = None,
    split: Split | None = None,
    group_by: str | None = None,
    threshold: float | None = None,
    min_score: float | None = None,
    tta: bool = False,
    tile: int | None = None,
    branch_uncertainty: bool = False,
    bits: int | None = None,
    spacing: float | Sequence[float] | None = None,
    batch_size: int = 8,
    seed: int = 0,
    model_name: str | None = None,
    data_name: str | None = None,
    command: str | None = None,
    on_start: Callable[[int], object] | None = None,
    on_result: Callable[[ImageResult], object] | None = None,
) -> Evaluation:
    r"""Evaluate a predictor on images with masks.

    Each image is evaluated at its own size and at 256x256, as in the paper; calibration and error detection only at
    256x256, where all images have the same weight. docs/evaluation.md explains each metric and the treatment of empty
    masks.

    Args:
        predictor: Predictor with any runtime; `branch_uncertainty` needs a predictor that has this map.
        data: A `Dataset`, images with masks in any layout that `open_dataset` reads, or a list of pairs.
        masks: Folder of masks, or annotation file, outside of a folder of images.
        classes: Names of the classes that are foreground, as in `open_dataset`.
        names: Names of the images to evaluate, without extension, as a list or a text file with one per line; default:
            all images.
        split: Evaluate only the "train", "validation" or "test" split that the data defines. If it defines none, the
            split of the training run in whose folder the checkpoint is.
        group_by: Column of a CSV file, or a regular expression whose first group finds the image's group, such as its
            hospital, in its name (`r"^(c\d)_"`). Adds metrics by group. Default: the groups of a
            `Dataset`, or of a CSV file with a column "group".
        threshold: Lowest probability at which a pixel is foreground, in (0, 1); default: the checkpoint's.
        min_score: Lowest score of an image, in (0, 1), below which its mask is empty; default: no limit.
        tta: Whether to average predictions over four flips of each image.
        tile: Side of tiles in pixels into which large images are cut; default: whole images.
        branch_uncertainty: Whether to measure how well the uncertainty branch detects errors.
        bits: Number of bits in use, 8 to 16, in images with 16-bit values; default: found from the images.
        spacing: Distance between pixels in millimeters, one number or (rows, columns). Adds distances in mm.
        batch_size: Number of images that the network processes together.
        seed: Seed of the confidence intervals, from 0 to 2**32 - 1.
        model_name: Name of the model in the results; default: `repr(predictor)`.
        data_name: Name of the data in the results; default: the name of the folder or file, with the list or split.
        command: Command that reproduces the results, for the saved files.
        on_start: Called with the number of images before the first one.
        on_result: Called with the result of each image.

    Returns:
        The metrics of each image with their means and intervals; `save` writes them to a folder.

    Raises:
        DatasetError: The data is incomplete or does not define the split, or a mask does not fit its image.
        ImageError: A file cannot be read.
        OptionError: The value of an argument is not allowed.

    Example:
        >>> evaluation = evaluate(predictor, "my_test_set", split="test")
        >>> len(evaluation.images), 0 <= evaluation.means()["mDSC"].value <= 1
        (2, True)
        >>> evaluation.save("metrics").name
        'metrics'
    """
    if not hasattr(predictor, "stream"):
        raise OptionError(
            f"predictor={reprlib.repr(predictor)} must be a Predictor: use Predictor.from_pretrained(...)",
            option="predictor",
        )
    check_seed(seed)
    pixel_size = None if spacing is None else check_spacing(spacing)
    options = EvaluationOptions(tta, tile, branch_uncertainty, bits, pixel_size, min_score, seed)
    recorded = recorded_split(local_path(predictor.model_id))
    with errors_about(data):
        pairs = choose_pairs(
            data, masks=masks, classes=classes, names=names, split=split, group_by=group_by, recorded=recorded
        )
    if split != "train":
        _warn_of_training_images(pairs, recorded)
    digests = predictor.training_images
    predictions = predictor.stream(
        [pair.image for pair in pairs],
        threshold=threshold,
        min_score=min_score,
        batch_size=batch_size,
        tta=tta,
        tile=tile,
        branch_uncertainty=branch_uncertainty,
        bits=bits,
    )
    if on_start is not None:
        on_start(len(pairs))
    began = time.perf_counter()
    results = []
    for pair, seg in zip(pairs, predictions, strict=True):
        with errors_about(pair.mask):
            known = None if digests is None else digests.matches([image_fingerprint(pair.image, bits=seg.bits)])[0]
            results.append(_measure(pair, seg, options.spacing_mm, trained_on=known))
        if on_result is not None:
            on_result(results[-1])
    if split != "train":
        _warn_of_content(results)
    return Evaluation(
        images=tuple(results),
        model=model_name or repr(predictor),
        data=data_name or _describe(data, names, split),
        threshold=float(predictor.threshold if threshold is None else threshold),
        options=options,
        environment={**describe_environment(), "device": predictor.device, "runtime": ", ".join(predictor.providers)},
        date=datetime.now(UTC).date().isoformat(),
        seconds=time.perf_counter() - began,
        command=command,
    )


def choose_pairs(
    data: Dataset | DataSource,
    *,
    masks: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | str | None = None,
    names: Sequence[str] | str | os.PathLike[str] | None = None,
    split: Split | None = None,
    group_by: str | None = None,
    recorded: Mapping[Split, Sequence[str]] | None = None,
) -> list[Pair]:
    """Choose the pairs to evaluate: all pairs, the pairs in a list, or the pairs of a split.

    Args:
        data: As in `evaluate`.
        masks: As in `evaluate`.
        classes: As in `evaluate`.
        names: As in `evaluate`.
        split: As in `evaluate`.
        group_by: As in `evaluate`.
        recorded: Names in each split of a training run, for data that defines no splits itself.

    Returns:
        The pairs, at least one.

    Raises:
        DatasetError: There are no pairs, the data is incomplete or does not define the split, or a listed name does not
            exist.
        OptionError: Both a list and a split are given, or the name of the split is unknown.

    Example:
        >>> [pair.name for pair in choose_pairs("my_test_set", split="validation")]
        ['val0', 'val1']
    """
    if split is None:
        listed = read_names(Path(names)) if isinstance(names, (str, os.PathLike)) else names
        if listed is not None and not (isinstance(listed, Sequence) and all(isinstance(name, str) for name in listed)):
            raise OptionError(f"names={reprlib.repr(names)} must be a list of strings, or a text file", option="names")
        pairs = find_pairs(data, names=listed, masks=masks, classes=classes, group_by=group_by)
    else:
        check_choice("split", split, Split)
        if names is not None:
            raise OptionError(f"split={split!r} and names cannot be combined: pass one of them", option="split")
        pairs = find_split(data, split, masks=masks, classes=classes, group_by=group_by)
        pairs = pairs or _of_names(data, masks, classes, group_by, (recorded or {}).get(split))
        if not pairs:  # a random split would have images that were trained on
            folder = {"train": "train", "validation": "val", "test": "test"}[split]
            raise DatasetError(
                f"{_describe(data, None, None)} defines no {split} split: leave split out to evaluate all of it, pass "
                f"a list of names (names=, --list), or data whose folders or lists define one, such as {folder}/"
            )
    if not pairs:
        raise DatasetError(f"{_describe(data, None, None)} has no images: pass data with masks to compare with")
    return pairs


def _of_names(
    data: Dataset | DataSource,
    masks: str | os.PathLike[str] | None,
    classes: Sequence[str] | str | None,
    group_by: str | None,
    names: Sequence[str] | None,
) -> list[Pair]:
    """Return the pairs of these names, or none if one is missing, since the run then used other data."""
    try:
        return find_pairs(data, names=names, masks=masks, classes=classes, group_by=group_by) if names else []
    except DatasetError:
        return []


def _warn_of_training_images(pairs: Sequence[Pair], recorded: Mapping[Split, Sequence[str]]) -> None:
    trained = set(recorded.get("train", ()))
    count = sum(pair.name in trained for pair in pairs)
    if count:
        logger.warning(
            "%d of %d images have names of training images in the run's settings.json; if they were trained on, the "
            "metrics say little about other images",
            count,
            len(pairs),
        )


def _warn_of_content(results: Sequence[ImageResult]) -> None:
    known = [result.pair.name for result in results if result.trained_on]
    if known:
        logger.warning(
            "%d of %s trained on before, by content, such as %s; the metrics say little about other images. The column "
            "trained_on of per_image.csv names all",
            len(known),
            pluralize(len(results), "image"),
            known[0],
        )


def _describe(data: Dataset | DataSource, names: object, split: Split | None) -> str:
    """Describe the data in words, without the folders above it."""
    text = data_name(data)
    if isinstance(names, (str, os.PathLike)):
        return f"{text} ({Path(names).name})"
    if names is not None:
        return f"{text} (a list of names)"
    return f"{text} ({split} split)" if split else text


def _measure(pair: Pair, seg: Segmentation, spacing: Spacing | None, *, trained_on: bool | None) -> ImageResult:
    target, prediction = load_mask_of(pair, seg.size), seg.mask
    small, small_target = seg.resized(PAPER_SIZE), resize_mask(target, PAPER_SIZE)
    small_prediction, probability = small.mask, small.probability
    wrong = small_prediction != small_target
    return ImageResult(
        pair=pair,
        size=seg.size,
        foreground=float(target.mean()),
        empty=_which_is_empty(bool(prediction.any()), bool(target.any())),
        marked=float(prediction.mean()),
        regions=len(find_regions(prediction)),
        score=seg.score,
        trained_on=trained_on,
        own=_image_metrics(prediction, seg.probability, target, spacing),
        small=_image_metrics(small_prediction, probability, small_target, None),
        uncertainty=score_error_detection(small.uncertainty, wrong),
        branch_uncertainty=(
            None if seg.branch_logits is None else score_error_detection(small.branch_uncertainty, wrong)
        ),
        bins=calibration_bins(probability, small_target),
        counts=threshold_counts(probability, small_target),
        bits=seg.bits,
    )


def _which_is_empty(prediction: bool, target: bool) -> Literal["none", "prediction", "target", "both"]:
    if prediction == target:
        return "none" if prediction else "both"
    return "target" if prediction else "prediction"


def _image_metrics(
    prediction: NDArray[np.bool_], probability: NDArray[np.float32], target: NDArray[np.bool_], spacing: Spacing | None
) -> ImageMetrics:
    surface = surface_scores(prediction, target)
    in_mm = surface_scores(prediction, target, spacing=spacing) if spacing else None
    return ImageMetrics(
        **asdict(score(prediction, target)),
        mae=float(np.abs(probability - target).mean(dtype=np.float64)),
        boundary_iou=boundary_iou(prediction, target),
        hd95=surface.hd95,
        assd=surface.assd,
        hd95_mm=in_mm.hd95 if in_mm else math.nan,
        assd_mm=in_mm.assd if in_mm else math.nan,
    )
