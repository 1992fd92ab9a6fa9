"""The result of one image: its metrics at both sizes, and what was found in it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.data import Pair
from condseg_sdk.metrics import ImageScores
from condseg_sdk.metrics.error_detection import ErrorDetection

__all__ = ["ImageMetrics", "ImageResult"]


@dataclass(frozen=True)
class ImageMetrics(ImageScores):
    """Metrics of one image at one size: the metrics of `ImageScores`, and more. docs/evaluation.md explains each.

    Attributes:
        mae: Mean absolute difference of probability and ground truth, in [0, 1].
        boundary_iou: Intersection over union of the boundaries, in [0, 1].
        hd95: 95th percentile of the distances between the contours, in pixels.
        assd: Average symmetric surface distance, in pixels.
        hd95_mm: `hd95` in millimeters at the image's own size, if the spacing is known; otherwise NaN.
        assd_mm: `assd` in millimeters at the image's own size, if the spacing is known; otherwise NaN.
    """

    mae: float
    boundary_iou: float
    hd95: float
    assd: float
    hd95_mm: float = math.nan
    assd_mm: float = math.nan


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The result of one image.

    Attributes:
        pair: The image and its mask.
        size: (height, width) of the image.
        foreground: Share of foreground in the ground truth, in [0, 1].
        empty: Which of prediction and ground truth has no foreground, at the image's own size.
        marked: Share of the image that the prediction marks, in [0, 1], at the image's own size.
        regions: Number of connected regions of the prediction, at the image's own size.
        score: `Segmentation.score`, how likely it is that the image has a region at all.
        trained_on: Whether the checkpoint was trained on the image or a copy of it; None if it has no digests.
        own: Metrics at the image's own size.
        small: Metrics at 256x256.
        uncertainty: How well `Segmentation.uncertainty` finds the errors, at 256x256.
        branch_uncertainty: How well the uncertainty branch does; None unless requested.
        bins: Result of `calibration_bins` at 256x256.
        counts: Result of `threshold_counts` at 256x256.
        bits: Number of bits with which the image was read, if it has 16-bit values; None for others.
    """

    pair: Pair
    size: tuple[int, int]
    foreground: float
    empty: Literal["none", "prediction", "target", "both"]
    marked: float
    regions: int
    score: float
    trained_on: bool | None
    own: ImageMetrics
    small: ImageMetrics
    uncertainty: ErrorDetection
    branch_uncertainty: ErrorDetection | None
    bins: NDArray[np.float64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    bits: int | None = None

    @property
    def has_region(self) -> bool:
        """Whether the ground truth has foreground."""
        return self.foreground > 0

    @property
    def is_false_alarm(self) -> bool:
        """Whether the prediction marks something although the ground truth is empty."""
        return self.empty == "target"

    @property
    def is_missed(self) -> bool:
        """Whether the prediction touches no pixel of a ground truth that is not empty."""
        return self.has_region and self.own.recall == 0

    def row(self) -> dict[str, str | float | int]:
        """Return the row of the CSV file, by column."""
        branch = self.branch_uncertainty or ErrorDetection(math.nan, math.nan)
        return {
            "name": self.pair.name,
            "group": self.pair.group or "",
            "width": self.size[1],
            "height": self.size[0],
            "foreground": self.foreground,
            "empty": self.empty,
            "missed": int(self.is_missed),
            "marked": self.marked,
            "regions": self.regions,
            "score": self.score,
            "trained_on": "" if self.trained_on is None else int(self.trained_on),
            **{f"{key}_256": value for key, value in asdict(self.small).items() if not key.endswith("_mm")},
            **{f"{key}_own": value for key, value in asdict(self.own).items()},
            **{f"uncertainty_{key}": value for key, value in asdict(self.uncertainty).items()},
            **{f"branch_uncertainty_{key}": value for key, value in asdict(branch).items()},
        }
