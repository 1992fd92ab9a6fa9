"""Metrics of how well the contours of two masks agree: distances, by MONAI, and the boundary IoU.

The contour of a mask consists of its pixels with a neighbor (above, below, left, right) outside of it; pixels outside
of the image are outside of the mask. The distance between two empty masks is 0. If only one of them is empty, there is
no distance, and leaving such images out would reward predictions that miss a region completely: they get the image's
diagonal, the largest distance in an image of that size, as in BraTS.
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
        hd95: 95th percentile of the distances to the nearest contour pixel, the larger one of both directions.
        assd: Average symmetric surface distance, the mean over all contour pixels of both masks.
    """

    hd95: float
    assd: float


def surface_scores(
    prediction: NDArray[np.bool_], target: NDArray[np.bool_], *, spacing: Sequence[float] = (1.0, 1.0)
) -> SurfaceScores:
    """Measure the distances between the contours of two masks.

    Args:
        prediction: Predicted mask, bool (H, W).
        target: Ground truth, bool (H, W).
        spacing: Distance between rows and between columns of pixels, each above 0.

    Returns:
        The distances, in the unit of the spacing.

    Example:
        >>> prediction, target = np.zeros((2, 1, 9), bool)
        >>> prediction[0, 1], target[0, 5] = True, True
        >>> surface_scores(prediction, target)
        SurfaceScores(hd95=4.0, assd=4.0)
        >>> surface_scores(prediction, target, spacing=(1.0, 0.5))
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
    """Compute the boundary IoU of two masks (Cheng et al., "Boundary IoU", CVPR 2021).

    The boundary of a mask consists of its pixels at a chessboard distance of at most d from the outside, where d is 2 %
    of the image's diagonal and at least 1.

    Args:
        prediction: Predicted mask, bool (H, W).
        target: Ground truth, bool (H, W).

    Returns:
        IoU of the boundaries, in [0, 1]; 1 if both masks are empty, and the IoU of the masks if they are thinner than 2
        d.

    Example:
        >>> boundary_iou(np.eye(3, dtype=bool), np.eye(3, dtype=bool))
        1.0
    """
    distance = max(1, round(BOUNDARY_RATIO * math.hypot(*prediction.shape)))
    a, b = _boundary(prediction, distance), _boundary(target, distance)
    return float(overlap_ratio(np.count_nonzero(a & b), np.count_nonzero(a | b)))


def _boundary(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    inner: Any = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)
