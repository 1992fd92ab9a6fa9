"""Calibration: whether a probability of 0.8 is correct in 8 of 10 pixels.

The sums of each bin are kept for each image, so that no pixel is read twice and images can be resampled for a
confidence interval.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "calibration_bins", "expected_calibration_error"]

BINS = 15


def calibration_bins(probability: NDArray[np.float32], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum pixels over bins of equal width, [0, 1/15), [1/15, 2/15), ..., [14/15, 1].

    Args:
        probability: Probability of foreground, float (H, W) in [0, 1].
        target: Ground truth, bool (H, W).

    Returns:
        Number of pixels, sum of their probabilities and number of foreground pixels in each bin, float64 (3, 15). The
        sums of several images can be added.

    Example:
        >>> calibration_bins(np.float32([[0.75, 0.75]]), np.array([[True, False]]))[:, 11].tolist()
        [2.0, 1.5, 1.0]
    """
    flat = probability.ravel().astype(np.float64)
    bins = np.minimum((flat * BINS).astype(np.int64), BINS - 1)
    weights = (None, flat, target.ravel().astype(np.float64))
    return np.stack([np.bincount(bins, weight, BINS) for weight in weights]).astype(np.float64)


def expected_calibration_error(bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the expected calibration error (ECE).

    It is the mean over pixels of the difference between the mean probability and the share of foreground in their bin.

    Args:
        bins: Sums of `calibration_bins` over images, float64 (..., 3, 15).

    Returns:
        Expected calibration error, float64 (...), in [0, 1].

    Example:
        >>> bins = calibration_bins(np.float32([[0.75, 0.75]]), np.array([[True, False]]))
        >>> float(expected_calibration_error(bins))
        0.25
    """
    pixels, probability, foreground = np.moveaxis(bins, -2, 0)
    return np.abs(probability - foreground).sum(-1) / pixels.sum(-1)
