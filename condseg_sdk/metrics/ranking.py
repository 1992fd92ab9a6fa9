"""Ranking: how well a number separates two groups, such as images with a region from images without one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["auroc"]


def auroc(positives: NDArray[np.floating], negatives: NDArray[np.floating], *, axis: int = -1) -> NDArray[np.float64]:
    """Compute the area under the ROC curve: the share of pairs in which the positive has the higher value.

    It is the Mann-Whitney U statistic divided by the number of pairs; ties count half. Ranks give it in float64, while
    torchmetrics sums the area under the curve in float32.

    Args:
        positives: Values of the positives, float (..., P), P >= 1.
        negatives: Values of the negatives, float (..., N), N >= 1.
        axis: Axis of P and N.

    Returns:
        Area under the curve, float64 (...), in [0, 1]; 0.5 for guessing.

    Example:
        >>> float(auroc(np.array([0.9, 0.4]), np.array([0.4, 0.1])))
        0.875
    """
    count, pairs = positives.shape[axis], positives.shape[axis] * negatives.shape[axis]
    ranks = rankdata(np.concatenate([positives, negatives], axis=axis), axis=axis)
    of_positives = np.take(ranks, np.arange(count), axis=axis).sum(axis)
    return (of_positives - count * (count + 1) / 2) / pairs
