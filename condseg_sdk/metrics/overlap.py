"""Metrics of the overlap of two masks, for each image.

The paper's mIoU and mDSC are means over images of each image's IoU and Dice coefficient of the foreground. Where
prediction and ground truth are both empty, nothing is wrong and every ratio is 1; where only the denominator of a ratio
is empty, it is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["ImageScores", "batch_iou", "mean_scores", "overlap_ratio", "score"]


@dataclass(frozen=True)
class ImageScores:
    """Overlap of a predicted mask with the ground truth of one image, each value in [0, 1].

    Attributes:
        iou: Intersection over union (Jaccard index).
        dice: Dice coefficient, which is also the F1 score.
        precision: Share of the predicted foreground that is correct.
        recall: Share of the true foreground that was found (sensitivity).
        f2: F-measure in which recall counts twice as much as precision.
        accuracy: Share of all pixels, including the background, that are correct.
    """

    iou: float
    dice: float
    precision: float
    recall: float
    f2: float
    accuracy: float


def score(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> ImageScores:
    """Compare a predicted mask with the ground truth.

    Args:
        prediction: Predicted mask, bool (H, W).
        target: Ground truth, bool (H, W).

    Example:
        >>> scores = score(np.array([[True, True]]), np.array([[True, False]]))
        >>> scores.iou, scores.precision, scores.recall
        (0.5, 0.5, 1.0)
    """
    hits = int(np.count_nonzero(prediction & target))
    found, wanted = int(np.count_nonzero(prediction)), int(np.count_nonzero(target))
    union = found + wanted - hits
    return ImageScores(
        iou=float(overlap_ratio(hits, union)),
        dice=float(overlap_ratio(2 * hits, found + wanted)),
        precision=hits / found if found else float(not union),
        recall=hits / wanted if wanted else float(not union),
        f2=float(overlap_ratio(5 * hits, 4 * wanted + found)),
        accuracy=1 - (union - hits) / prediction.size,
    )


def overlap_ratio(overlap: ArrayLike, total: ArrayLike) -> NDArray[np.float64]:
    """Divide numbers of pixels, with 1 where both masks are empty, as for IoU and Dice.

    Args:
        overlap: Numbers of pixels, such as the intersections of masks; any shape.
        total: Numbers of pixels, such as their unions; 0 where both masks are empty.

    Returns:
        Ratios as float64, of the broadcast shape.

    Example:
        >>> overlap_ratio([2, 0], [4, 0]).tolist()
        [0.5, 1.0]
    """
    overlap, total = np.broadcast_arrays(overlap, total)
    return np.divide(overlap, total, out=np.ones(total.shape), where=total > 0)


def batch_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the IoU of each image of a batch on the batch's device.

    Args:
        prediction: Predicted masks, bool (B, 1, H, W).
        target: Ground truth, bool (B, 1, H, W).

    Returns:
        IoU of each image, float32 (B,).

    Example:
        >>> batch_iou(torch.ones(1, 1, 2, 2).bool(), torch.eye(2).bool()[None, None])
        tensor([0.5000])
    """
    overlap, union = (prediction & target).sum((1, 2, 3)), (prediction | target).sum((1, 2, 3))
    return torch.where(union > 0, overlap / union.clamp(min=1), 1.0)


def mean_scores(scores: Iterable[ImageScores]) -> dict[str, float]:
    """Return the means over images, {"mIoU": ..., "mDSC": ...}."""
    rows = np.array([(s.iou, s.dice) for s in scores], np.float64)
    return {"mIoU": float(rows[:, 0].mean()), "mDSC": float(rows[:, 1].mean())}
