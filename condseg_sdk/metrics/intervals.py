"""Values of a set of images with confidence intervals: the range that another sample might give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from condseg_sdk.metrics.ranking import auroc

__all__ = ["Estimate", "estimate", "estimate_auroc", "estimate_mean", "estimate_share"]

CONFIDENCE = 0.95
RESAMPLES = 5000
BATCH = 100  # resamples at a time, to limit memory


@dataclass(frozen=True)
class Estimate:
    """A statistic of a set of images with its interval.

    Attributes:
        value: Value of the set; NaN if no image has one.
        low: Lower end of the 95 % interval, by percentile bootstrap over images, or Wilson's for a share; NaN where
            there are too few images.
        high: Upper end of the interval.
        images: Number of images with a value.
    """

    value: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        """Return "0.8035 (0.7702 to 0.8331)", with two decimals for values above 1."""
        if math.isnan(self.value):
            return "-"
        places = 4 if abs(self.value) <= 1 else 2
        interval = "" if math.isnan(self.low) else f" ({self.low:.{places}f} to {self.high:.{places}f})"
        return f"{self.value:.{places}f}{interval}"

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain JSON values, None for NaN."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {**{key: None if math.isnan(value) else value for key, value in values.items()}, "images": self.images}


def estimate_mean(values: Sequence[float] | NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Estimate the mean over images; images without a value (NaN) are left out and not counted.

    Args:
        values: Value of each image.
        seed: Seed of the resamples. The same seed gives the same interval.

    Example:
        >>> estimate_mean([0.5, 0.5, 0.5]).high
        0.5
    """
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    rows = np.stack([known, np.ones_like(known)], axis=1)
    return estimate(rows, lambda sums: sums[..., 0] / sums[..., 1], seed=seed)


def estimate(
    rows: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, seed: int = 0
) -> Estimate:
    """Estimate a statistic of sums over images.

    Args:
        rows: Summands of each image, float64 (N, K).
        statistic: Computes the statistic (...) from sums over images (..., K).
        seed: Seed of the resamples.

    Example:
        >>> hits_and_pixels = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> round(estimate(hits_and_pixels, lambda sums: sums[..., 0] / sums[..., 1]).value, 4)
        0.6667
    """
    count = len(rows)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(statistic(rows.sum(0)))
    if count == 1:
        return Estimate(value, math.nan, math.nan, 1)

    def of_resamples(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:  # noqa: ARG001 - the last one
        """Convert indices of images (..., N) to statistics (...)."""
        resamples = drawn.reshape(-1, count)
        first = np.arange(len(resamples))[:, None] * count  # each resample counts in numbers of its own
        times = np.bincount((resamples + first).ravel(), minlength=resamples.size).reshape(drawn.shape)
        return statistic(times @ rows)

    return Estimate(value, *_resampled((np.arange(count),), of_resamples, seed), count)


def estimate_share(count: int, total: int) -> Estimate:
    """Estimate the share of the images with a property, with Wilson's score interval.

    Unlike the bootstrap it has a width where none or all of the images have the property.

    Args:
        count: Number of images with the property.
        total: Number of images.

    Example:
        >>> str(estimate_share(0, 20))
        '0.0000 (0.0000 to 0.1611)'
    """
    if total == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high), total)


def estimate_auroc(positives: Sequence[float], negatives: Sequence[float], *, seed: int = 0) -> Estimate:
    """Estimate the area under the ROC curve; the positives and the negatives are resampled separately.

    Args:
        positives: Value of each positive image.
        negatives: Value of each negative image.
        seed: Seed of the resamples.

    Example:
        >>> estimate_auroc([0.9, 0.4], [0.4, 0.1]).value
        0.875
    """
    groups = (np.asarray(positives, np.float64), np.asarray(negatives, np.float64))
    total = sum(map(len, groups))
    if min(map(len, groups)) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(auroc(*groups))
    if min(map(len, groups)) == 1:
        return Estimate(value, math.nan, math.nan, total)
    return Estimate(value, *_resampled(groups, auroc, seed), total)


def _resampled(
    groups: tuple[NDArray[np.generic], ...], statistic: Callable[..., NDArray[np.float64]], seed: int
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic of one or several groups of images."""
    interval = bootstrap(
        groups,
        statistic,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
