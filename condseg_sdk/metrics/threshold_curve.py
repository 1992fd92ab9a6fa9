"""Precision, recall and Dice at every threshold, from counts of pixels that are kept for each image."""

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
    """What each of `THRESHOLDS` gives, each float64 (100,) in [0, 1].

    Attributes:
        precision, recall: of all pixels of all images together; precision is 1 where no pixel reaches the threshold.
        dice: mean over images of each image's Dice; 1 for an image where mask and answer are both empty.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    dice: NDArray[np.float64]


def threshold_counts(probability: NDArray[np.float32], target: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels of background and of foreground by their probability.

    Args:
        probability: float (H, W) in [0, 1], of the foreground.
        target: bool (H, W), the truth.

    Returns:
        int64 (2, 100): background and foreground with a probability from k/100 up to, not including, (k+1)/100; the
        last one has 1 as well.
    """
    steps = np.minimum((probability.ravel().astype(np.float64) * STEPS).astype(np.int64), STEPS - 1)
    return np.bincount(steps + STEPS * target.ravel(), minlength=2 * STEPS).reshape(2, STEPS)


def threshold_curve(counts: NDArray[np.int64]) -> ThresholdCurve:
    """The curve over a set of images.

    Args:
        counts: int64 (N, 2, 100), `threshold_counts` of each image.
    """
    reaching = counts[..., ::-1].cumsum(-1)[..., ::-1]
    false_alarms, hits = reaching[:, 0], reaching[:, 1]
    wanted = counts[:, 1].sum(-1, keepdims=True)
    all_hits, answered = hits.sum(0), reaching.sum((0, 1))
    return ThresholdCurve(
        precision=np.divide(all_hits, answered, out=np.ones(STEPS), where=answered > 0),
        recall=all_hits / max(int(wanted.sum()), 1),
        dice=overlap_ratio(2 * hits, hits + false_alarms + wanted).mean(0),
    )
