"""Whether a probability of 0.8 is right in 8 of 10 pixels: reliability over bins, and the expected calibration error.

The sums of each bin are kept for every image, so that a set of any length needs no pixel twice, and so that images can
be drawn anew for a confidence interval.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "calibration_bins", "expected_calibration_error"]

BINS = 15


def calibration_bins(probability: NDArray[np.float32], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sums over bins of equal width, [0, 1/15), [1/15, 2/15), ..., [14/15, 1].

    Args:
        probability: float (H, W) in [0, 1], of the foreground.
        target: bool (H, W), the truth.

    Returns:
        float64 (3, 15): pixels, sum of their probabilities, pixels of the foreground. Images add up.
    """
    flat = probability.ravel().astype(np.float64)
    bins = np.minimum((flat * BINS).astype(np.int64), BINS - 1)
    weights = (None, flat, target.ravel().astype(np.float64))
    return np.stack([np.bincount(bins, weight, BINS) for weight in weights]).astype(np.float64)


def expected_calibration_error(bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over pixels of how far each bin's mean probability is from its share of foreground, in [0, 1].

    Args:
        bins: float64 (..., 3, 15), from `calibration_bins`, added up over images.

    Returns:
        float64 (...).

    Example:
        >>> bins = calibration_bins(np.float32([[0.75, 0.75]]), np.array([[True, False]]))
        >>> float(expected_calibration_error(bins))
        0.25
    """
    pixels, probability, foreground = np.moveaxis(bins, -2, 0)
    return np.abs(probability - foreground).sum(-1) / pixels.sum(-1)
