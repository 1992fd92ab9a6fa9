"""Measure a predictor on images with masks: one row an image, means with intervals, files.

Images stream through: what is kept of each is a row of figures and two small tables of counts. The figures themselves
are made in `metrics/`, pictures of them in `report/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import CondsegError, DatasetError, OptionError, check_choice
from condseg_sdk.images import source_name
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.training.data import DataSource, Pair, find_pairs, load_mask, open_dataset, resize_mask
from condseg_sdk.training.data.masks import size_agreement
from condseg_sdk.training.data.pairs import Part
from condseg_sdk.training.environment import describe_environment
from condseg_sdk.training.evaluation import PAPER_SIZE, Evaluation, Figures, ImageResult
from condseg_sdk.training.metrics import score
from condseg_sdk.training.metrics.calibration import calibration_bins
from condseg_sdk.training.metrics.errors_found import errors_found
from condseg_sdk.training.metrics.surface import boundary_iou, surface_scores
from condseg_sdk.training.metrics.thresholds import threshold_counts

if TYPE_CHECKING:
    from condseg_sdk.predictor import Predictor

__all__ = ["choose_pairs", "evaluate"]


def evaluate(
    predictor: Predictor,
    data: DataSource,
    *,
    names: Sequence[str] | None = None,
    part: Part | None = None,
    threshold: float | None = None,
    tta: bool = False,
    tile: int | None = None,
    uncertainty: bool = False,
    spacing: float | Sequence[float] | None = None,
    batch_size: int = 8,
    seed: int = 0,
    on_result: Callable[[ImageResult], object] | None = None,
) -> Evaluation:
    """Measure a predictor on images with masks.

    Each image is measured at its own size and at 256x256, as in the paper; calibration and uncertainty at 256x256, where
    all images weigh the same. docs/evaluation.md says what each figure is and what becomes of empty masks.

    Args:
        predictor: with any runtime; for `uncertainty` one that has the map.
        data: images with masks in any layout that `open_dataset` reads, or a list of pairs.
        names: only these images, without extension; default: all.
        part: only the "train", "validation" or "test" part, as the data divides itself.
        threshold, tta, tile, batch_size: as for the predictor.
        uncertainty: measure how well the uncertainty branch finds the errors, too.
        spacing: millimetres between pixels of the images: one number, or rows and columns. Adds distances in mm.
        seed: of the confidence intervals.
        on_result: called with each image's result, for a progress bar.

    Returns:
        The figures of every image, their means and intervals; `save` writes them to a folder.

    Raises:
        DatasetError: the data is incomplete, or a mask does not fit its image.
        ImageError: a file cannot be read.
        OptionError: an argument's value is not allowed.

    Example:
        >>> evaluation = evaluate(predictor, "kvasir_seg", part="test")  # doctest: +SKIP
        >>> print(evaluation)  # doctest: +SKIP
        >>> evaluation.save("figures")  # doctest: +SKIP
    """
    pairs = choose_pairs(data, names=names, part=part)
    pixel = _spacing(spacing)
    options: dict[str, Any] = {"threshold": threshold, "tta": tta, "tile": tile, "uncertainty": uncertainty}
    answers = predictor.stream([pair.image for pair in pairs], batch_size=batch_size, **options)
    began = time.perf_counter()
    results = []
    for pair, seg in zip(pairs, answers, strict=True):
        results.append(measure(pair.name, seg, _truth(pair, seg.size), spacing=pixel))
        if on_result is not None:
            on_result(results[-1])
    return Evaluation(
        images=tuple(results),
        model=predictor.name,
        data=data_name(data) + (f", {part} part" if part else ""),
        threshold=predictor.threshold if threshold is None else threshold,
        options={"tta": tta, "tile": tile, "uncertainty": uncertainty, "spacing_mm": pixel, "seed": seed},
        environment={**describe_environment(), "device": predictor.device, "runtime": ", ".join(predictor.providers)},
        date=datetime.now(UTC).date().isoformat(),
        seconds=time.perf_counter() - began,
    )
