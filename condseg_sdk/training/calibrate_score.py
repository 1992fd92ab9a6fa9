"""The calibration of `Segmentation.score`, fitted on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from condseg_sdk.region_score import ScoreCalibration

__all__ = ["MIN_IMAGES", "calibrate_score"]

MIN_IMAGES = 5
"""Least number of images of each kind; with fewer the curve would be a matter of chance."""


def calibrate_score(peaks: Sequence[float], has_region: Sequence[bool]) -> ScoreCalibration | None:
    """Fit the logistic curve from an image's highest logits to the probability that it has a region.

    It is Platt's method (1999): logistic regression with targets a little inside of 0 and 1, which keeps the curve
    finite where a value separates the images perfectly. The probabilities hold for the share of images with a region
    among the given ones.

    Args:
        peaks: `peak_logit` of each image.
        has_region: Whether the ground truth of each image has a region.

    Returns:
        The curve; None if there are fewer than five images of one kind, or if the peaks do not tell them apart.

    Example:
        >>> curve = calibrate_score([4.0, 5.0, 6.0, 7.0, 8.0, -5.0, -4.0, -3.0, -2.0, -1.0], [True] * 5 + [False] * 5)
        >>> round(curve(8.0), 2), round(curve(-8.0), 2)
        (0.92, 0.03)
    """
    x, is_positive = np.asarray(peaks, np.float64), np.asarray(has_region, bool)
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if min(positives, negatives) < MIN_IMAGES:
        return None
    target = np.where(is_positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    center, scale = x.mean(), max(x.std(), 1e-6)  # for a well-conditioned problem
    z = (x - center) / scale

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the cross-entropy and its gradient."""
        logits = weights[0] * z + weights[1]
        error = expit(logits) - target
        return float((np.logaddexp(0, logits) - target * logits).sum()), np.array([error @ z, error.sum()])

    slope, intercept = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    if slope <= 0:
        return None
    return ScoreCalibration(float(slope / scale), float(intercept - slope * center / scale))
