"""Per-image metrics of how well two masks' contours agree: distances on MONAI, and the boundary IoU.

A mask's contour are its pixels with a neighbour (above, below, left, right) outside of it; what lies outside of the
image is outside of the mask. Between two empty masks the distance is 0. If only one of them is empty there is none to
measure, and leaving such images out would reward answers that miss a region altogether: they get the image's diagonal,
the largest distance an image of that size can hold (as BraTS does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance
from numpy.typing import NDArray

from condseg_sdk.metrics.overlap import overlap_ratio
from condseg_sdk.opencv import cv2

__all__ = ["SurfaceScores", "boundary_iou", "surface_scores"]

BOUNDARY_RATIO = 0.02
"""Width of the boundary as a share of the image's diagonal (Cheng et al. 2021, section 4)."""


@dataclass(frozen=True)
class SurfaceScores:
    """Distances between two contours, in pixels, or in the unit of the spacing.

    Attributes:
        hd95: the larger of both directions' 95th percentile of the distances to the nearest contour pixel.
        assd: average symmetric surface distance: the mean over all contour pixels of both masks.
    """

    hd95: float
    assd: float


def surface_scores(
    prediction: NDArray[np.bool_], target: NDArray[np.bool_], *, spacing: Sequence[float] = (1.0, 1.0)
) -> SurfaceScores:
    """Distances between the contours of two masks.

    Args:
        prediction: bool (H, W).
        target: bool (H, W), the truth.
        spacing: row and column spacing of the pixels, each above 0.

    Example:
        >>> answer, truth = np.zeros((2, 1, 9), bool)
        >>> answer[0, 1], truth[0, 5] = True, True
        >>> surface_scores(answer, truth)
        SurfaceScores(hd95=4.0, assd=4.0)
        >>> surface_scores(answer, truth, spacing=(1.0, 0.5))
        SurfaceScores(hd95=2.0, assd=2.0)
    """
    found, wanted = bool(prediction.any()), bool(target.any())
    if not (found and wanted):
        height, width = prediction.shape
        worst = math.hypot(height * spacing[0], width * spacing[1]) if found or wanted else 0.0
        return SurfaceScores(worst, worst)
    a, b = get_mask_edges(prediction, target)
    there, back = (
        np.asarray(get_surface_distance(*edges, spacing=tuple(spacing)), np.float64) for edges in ((a, b), (b, a))
    )
    return SurfaceScores(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(np.concatenate([there, back]).mean()),
    )


def boundary_iou(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    """Intersection over union of the two masks' boundaries (Cheng et al., "Boundary IoU", CVPR 2021).

    A mask's boundary are its pixels at most d steps (of a king on a chessboard) from what is outside of it, d being
    2 % of the image's diagonal, at least 1. Both masks empty: 1; one of them: 0.

    Args:
        prediction: bool (H, W).
        target: bool (H, W), the truth.

    Returns:
        A figure in [0, 1]; for masks thinner than 2 d their IoU.
    """
    distance = max(1, round(BOUNDARY_RATIO * math.hypot(*prediction.shape)))
    a, b = _boundary(prediction, distance), _boundary(target, distance)
    return float(overlap_ratio(np.count_nonzero(a & b), np.count_nonzero(a | b)))


def _boundary(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    inner: Any = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)
