"""Means over images with bootstrap confidence intervals: the range that another sample might give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

__all__ = ["Estimate", "estimate", "estimate_mean"]

CONFIDENCE = 0.95
RESAMPLES = 5000
BATCH = 100  # resamples at a time, to limit memory


@dataclass(frozen=True)
class Estimate:
    """A statistic of a set of images with its interval.

    Attributes:
        value: Value of the set; NaN if no image has one.
        low: Lower end of the 95 % interval, by percentile bootstrap over images; NaN for fewer than two images.
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

    def of_resamples(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        """Convert indices of images (..., N) to statistics (...)."""
        times = np.apply_along_axis(np.bincount, axis, drawn, minlength=count)
        return statistic(times @ rows)

    interval = bootstrap(
        (np.arange(count),),
        of_resamples,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), count)
