"""Per-image metrics of how far two masks overlap, on torchmetrics.

The paper's mIoU and mDSC are means over images of each image's IoU and Dice of the foreground. Where a ratio has
nothing to divide by, it is 1 if mask and answer are both empty, since then nothing is wrong, and 0 otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_stat_scores

__all__ = ["ImageScores", "mean_scores", "score"]


@dataclass(frozen=True)
class ImageScores:
    """Overlap of one image's foreground with the truth, each figure in [0, 1].

    Attributes:
        iou: intersection over union (Jaccard index).
        dice: Dice coefficient, which is also F1.
        precision: share of the answer that is right.
        recall: share of the truth that was found (sensitivity).
        f2: F-measure in which recall counts twice as much as precision.
        accuracy: share of all pixels, background too, that are right.
    """

    iou: float
    dice: float
    precision: float
    recall: float
    f2: float
    accuracy: float


def score(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> ImageScores:
    """Compare two masks.

    Args:
        prediction: bool (H, W).
        target: bool (H, W), the truth.

    Example:
        >>> scores = score(np.array([[True, True]]), np.array([[True, False]]))
        >>> scores.iou, scores.precision, scores.recall
        (0.5, 0.5, 1.0)
    """
    stats = binary_stat_scores(torch.from_numpy(prediction).int(), torch.from_numpy(target).int(), validate_args=False)
    hit, false_alarm, rejected, miss, _ = (int(n) for n in stats)
    nothing = 1.0 if hit + false_alarm + miss == 0 else 0.0

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else nothing

    return ImageScores(
        iou=ratio(hit, hit + false_alarm + miss),
        dice=ratio(2 * hit, 2 * hit + false_alarm + miss),
        precision=ratio(hit, hit + false_alarm),
        recall=ratio(hit, hit + miss),
        f2=ratio(5 * hit, 5 * hit + 4 * miss + false_alarm),
        accuracy=(hit + rejected) / prediction.size,
    )


def mean_scores(scores: Iterable[ImageScores]) -> dict[str, float]:
    """Means over images: {"mIoU": ..., "mDSC": ...}."""
    rows = np.array([(s.iou, s.dice) for s in scores], np.float64)
    return {"mIoU": float(rows[:, 0].mean()), "mDSC": float(rows[:, 1].mean())}
