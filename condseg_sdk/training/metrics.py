"""Per-image segmentation metrics, on torchmetrics.

The paper's mIoU and mDSC are means over images of each image's IoU and Dice of the foreground. An image without
foreground, in the mask and in the answer, counts 1; if only one of them is empty, 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_stat_scores


@dataclass(frozen=True)
class ImageScores:
    """IoU and Dice of one image's foreground, each in [0, 1]."""

    iou: float
    dice: float


def score(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> ImageScores:
    """Compare two masks.

    Args:
        prediction: bool (H, W).
        target: bool (H, W).

    Example:
        >>> score(np.array([[True, True]]), np.array([[True, False]]))
        ImageScores(iou=0.5, dice=0.6666666666666666)
    """
    stats = binary_stat_scores(torch.from_numpy(prediction).int(), torch.from_numpy(target).int(), validate_args=False)
    hit, false_alarm, _, miss, _ = (int(n) for n in stats)
    union = hit + false_alarm + miss
    if union == 0:
        return ImageScores(1.0, 1.0)
    return ImageScores(hit / union, 2 * hit / (union + hit))


def mean_scores(scores: Iterable[ImageScores]) -> dict[str, float]:
    """Means over images: {"mIoU": ..., "mDSC": ...}."""
    rows = np.array([(s.iou, s.dice) for s in scores], np.float64)
    return {"mIoU": float(rows[:, 0].mean()), "mDSC": float(rows[:, 1].mean())}
