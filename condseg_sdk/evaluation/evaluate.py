"""Measure a predictor on images with masks.

Images stream through: what is kept of each is a row of figures and two small tables of counts. The figures are made in
`metrics/`, what becomes of them is in `evaluation.py`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.data import (
    DataSource,
    Pair,
    data_name,
    find_pairs,
    find_part,
    load_mask,
    read_names,
    resize_mask,
)
from condseg_sdk.data.masks import size_agreement
from condseg_sdk.data.pairs import Dataset, Split
from condseg_sdk.data.recorded_split import recorded_split
from condseg_sdk.environment import describe_environment
from condseg_sdk.errors import DatasetError, OptionError
from condseg_sdk.evaluation.result import PAPER_SIZE, Evaluation, EvaluationOptions, Figures, ImageResult
from condseg_sdk.metrics import score
from condseg_sdk.metrics.calibration import calibration_bins
from condseg_sdk.metrics.error_detection import score_error_detection
from condseg_sdk.metrics.surface import boundary_iou, surface_scores
from condseg_sdk.metrics.threshold_curve import threshold_counts
from condseg_sdk.options import check_choice, check_seed, check_spacing
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.weights.hub import local_path

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
    names: Sequence[str] | str | os.PathLike[str] | None = None,
    part: Split | None = None,
    threshold: float | None = None,
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
    """Measure a predictor on images with masks.

    Each image is measured at its own size and at 256x256, as in the paper; calibration and error finding at 256x256,
    where all images weigh the same. docs/evaluation.md says what each figure is and what becomes of empty masks.

    Args:
        predictor: with any runtime; for `branch_uncertainty` one that has the map.
        data: A `Dataset`, or images with masks in any layout that `open_dataset` reads, or a list of pairs.
        masks: a folder of masks, or an annotation file, that stands apart from a folder of images.
        names: only these images: a list of names without extension, or a text file with one a line; default: all.
        part: only the "train", "validation" or "test" part that the data names itself; where it names none, that of
            the run of `finetune` in whose folder the checkpoint lies.
        threshold, tta, tile, bits, batch_size: as for the predictor.
        branch_uncertainty: measure how well the uncertainty branch finds the errors, too.
        spacing: millimetres between the images' pixels: one number, or rows and columns. Adds distances in mm.
        seed: of the confidence intervals, 0 to 2**32 - 1.
        model_name: what the files call the model; default: `repr(predictor)`.
        data_name: what they call the data; default: its own name, with the list's or the part's.
        command: how to make the figures again, for the files.
        on_start: called with the number of images before the first one.
        on_result: called with each image's result.

    Returns:
        The figures of every image, their means and intervals; `save` writes them to a folder.

    Raises:
        DatasetError: the data is incomplete or names no such part, or a mask does not fit its image.
        ImageError: a file cannot be read.
        OptionError: an argument's value is not allowed.

    Example:
        >>> evaluation = evaluate(predictor, "kvasir_seg", part="test")  # doctest: +SKIP
        >>> print(evaluation)  # doctest: +SKIP
        >>> evaluation.save("figures")  # doctest: +SKIP
    """
    check_seed(seed)
    pixel_size = None if spacing is None else check_spacing(spacing)
    options = EvaluationOptions(tta, tile, branch_uncertainty, bits, pixel_size, seed)
    split = recorded_split(local_path(predictor.model_id))
    pairs = choose_pairs(data, masks=masks, names=names, part=part, split=split)
    if part != "train":
        _warn_of_training_images(pairs, split)
    predictions = predictor.stream(
        [pair.image for pair in pairs],
        threshold=threshold,
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
        results.append(_measure(pair, seg, options.spacing_mm))
        if on_result is not None:
            on_result(results[-1])
    return Evaluation(
        images=tuple(results),
        model=model_name or repr(predictor),
        data=data_name or _describe(data, names, part),
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
    names: Sequence[str] | str | os.PathLike[str] | None = None,
    part: Split | None = None,
    split: Mapping[Split, Sequence[str]] | None = None,
) -> list[Pair]:
    """The pairs to measure on: all, those of a list, or those of a part.

    Args:
        data, masks, names, part: as for `evaluate`.
        split: names by part, for data that names no parts itself.

    Raises:
        DatasetError: there are none, the data is incomplete or names no such part, or a listed name does not exist.
        OptionError: both a list and a part are given, or the part is none of the three.
    """
    if part is None:
        listed = read_names(Path(names)) if isinstance(names, (str, os.PathLike)) else names
        pairs = find_pairs(data, names=listed, masks=masks)
    else:
        check_choice("part", part, Split)
        if names is not None:
            raise OptionError(f"part={part!r} and names exclude each other: give one of them")
        pairs = find_part(data, part, masks=masks) or _of_split(data, masks, (split or {}).get(part))
        if not pairs:  # a part drawn at random would hold images that were trained on
            folder = {"train": "train", "validation": "val", "test": "test"}[part]
            raise DatasetError(
                f"{_describe(data, None, None)} names no {part} part: leave part out to measure all of it, give a list "
                f"of names (names=, --list), or data whose folders or lists name one, such as {folder}/"
            )
    if not pairs:
        raise DatasetError(f"{_describe(data, None, None)} has no images: give data with masks to compare with")
    return pairs


def _of_split(
    data: Dataset | DataSource, masks: str | os.PathLike[str] | None, names: Sequence[str] | None
) -> list[Pair]:
    """The pairs of these names, or none where the data lacks one: it is not what was divided then."""
    try:
        return find_pairs(data, names=names, masks=masks) if names else []
    except DatasetError:
        return []


def _warn_of_training_images(pairs: Sequence[Pair], split: Mapping[Split, Sequence[str]]) -> None:
    trained = set(split.get("train", ()))
    count = sum(pair.name in trained for pair in pairs)
    if count:
        logger.warning(
            "%d of %d images were trained on, if they are those of the same names in the run's settings.json: the "
            "figures say little of other images",
            count,
            len(pairs),
        )


def _describe(data: Dataset | DataSource, names: object, part: Split | None) -> str:
    """The data in words, without the folders above it."""
    text = data_name(data)
    if isinstance(names, (str, os.PathLike)):
        return f"{text} ({Path(names).name})"
    if names is not None:
        return f"{text} (a list of names)"
    return f"{text} ({part} part)" if part else text


def _measure(pair: Pair, seg: Segmentation, spacing: Spacing | None) -> ImageResult:
    truth, answer = _truth(pair, seg.size), seg.mask
    small, small_truth = seg.resized(PAPER_SIZE), resize_mask(truth, PAPER_SIZE)
    small_answer, probability = small.mask, small.probability
    wrong = small_answer != small_truth
    return ImageResult(
        pair=pair,
        size=seg.size,
        foreground=float(truth.mean()),
        empty=_which_is_empty(bool(answer.any()), bool(truth.any())),
        own=_figures(answer, seg.probability, truth, spacing),
        small=_figures(small_answer, probability, small_truth, None),
        uncertainty=score_error_detection(small.uncertainty, wrong),
        branch_uncertainty=(
            None if seg.branch_logits is None else score_error_detection(small.branch_uncertainty, wrong)
        ),
        bins=calibration_bins(probability, small_truth),
        counts=threshold_counts(probability, small_truth),
    )


def _truth(pair: Pair, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = load_mask(pair.mask)
    given = (mask.shape[0], mask.shape[1])
    if size_agreement(size, given) == "different":
        raise DatasetError(
            f"{pair.image} is {size[1]}x{size[0]} but its mask {pair.mask} {given[1]}x{given[0]}: they must be of one "
            "size"
        )
    return resize_mask(mask, size)


def _which_is_empty(answer: bool, truth: bool) -> Literal["none", "answer", "truth", "both"]:
    if answer == truth:
        return "none" if answer else "both"
    return "truth" if answer else "answer"


def _figures(
    answer: NDArray[np.bool_], probability: NDArray[np.float32], truth: NDArray[np.bool_], spacing: Spacing | None
) -> Figures:
    surface = surface_scores(answer, truth)
    in_mm = surface_scores(answer, truth, spacing=spacing) if spacing else None
    return Figures(
        **asdict(score(answer, truth)),
        mae=float(np.abs(probability - truth).mean(dtype=np.float64)),
        boundary_iou=boundary_iou(answer, truth),
        hd95=surface.hd95,
        assd=surface.assd,
        hd95_mm=in_mm.hd95 if in_mm else math.nan,
        assd_mm=in_mm.assd if in_mm else math.nan,
    )
