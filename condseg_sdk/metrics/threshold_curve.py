"""Precision, recall and Dice at every threshold, from pixel counts that are kept for each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.metrics.overlap import overlap_ratio

__all__ = ["THRESHOLDS", "ThresholdCurve", "threshold_counts", "threshold_curve"]

STEPS = 100
THRESHOLDS: NDArray[np.float64] = np.arange(STEPS) / STEPS
"""0, 0.01, ..., 0.99."""


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Metrics at each of `THRESHOLDS`, each float64 (100,) in [0, 1].

    Attributes:
        precision: Precision over all pixels of all images; 1 where no pixel reaches the threshold.
        recall: Recall over all pixels of all images.
        dice: Mean over images of the Dice coefficient, which is 1 if prediction and ground truth are both empty.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    dice: NDArray[np.float64]


def threshold_counts(probability: NDArray[np.float32], target: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count pixels of background and of foreground by their probability.

    Args:
        probability: Probability of foreground, float (H, W) in [0, 1].
        target: Ground truth, bool (H, W).

    Returns:
        Number of background and foreground pixels with a probability in [k/100, (k+1)/100), int64 (2, 100). The last
        interval includes 1.

    Example:
        >>> counts = threshold_counts(np.float32([[0.25, 0.75]]), np.array([[False, True]]))
        >>> counts[0, 25].item(), counts[1, 75].item()
        (1, 1)
    """
    steps = np.minimum((probability.ravel().astype(np.float64) * STEPS).astype(np.int64), STEPS - 1)
    return np.bincount(steps + STEPS * target.ravel(), minlength=2 * STEPS).reshape(2, STEPS)


def threshold_curve(counts: NDArray[np.int64]) -> ThresholdCurve:
    """Compute the curve of a set of images.

    Args:
        counts: Result of `threshold_counts` for each image, int64 (N, 2, 100).

    Example:
        >>> counts = threshold_counts(np.float32([[0.25, 0.75]]), np.array([[False, True]]))
        >>> threshold_curve(counts[None]).dice[50].item()
        1.0
    """
    reaching = counts[..., ::-1].cumsum(-1)[..., ::-1]
    false_alarms, hits = reaching[:, 0], reaching[:, 1]
    wanted = counts[:, 1].sum(-1, keepdims=True)
    all_hits, predicted = hits.sum(0), reaching.sum((0, 1))
    return ThresholdCurve(
        precision=np.divide(all_hits, predicted, out=np.ones(STEPS), where=predicted > 0),
        recall=all_hits / max(int(wanted.sum()), 1),
        dice=overlap_ratio(2 * hits, hits + false_alarms + wanted).mean(0),
    )
