"""Means over images with bootstrap confidence intervals: what another sample of as many images might have given."""

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
BATCH = 100  # resamples at once: memory stays flat, however many images there are


@dataclass(frozen=True)
class Estimate:
    """A figure of a set of images with its interval.

    Attributes:
        value: of the set itself; NaN where no image has one.
        low, high: percentile bootstrap over images, 95 %; NaN with less than two images.
        images: how many images it is made of.
    """

    value: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        """ "0.8035 (0.7702 to 0.8331)"; two places where it is above 1."""
        if math.isnan(self.value):
            return "-"
        places = 4 if abs(self.value) <= 1 else 2
        interval = "" if math.isnan(self.low) else f" ({self.low:.{places}f} to {self.high:.{places}f})"
        return f"{self.value:.{places}f}{interval}"

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain JSON values, None for NaN."""
        figures = {"value": self.value, "low": self.low, "high": self.high}
        return {
            **{key: None if math.isnan(figure) else figure for key, figure in figures.items()},
            "images": self.images,
        }


def estimate_mean(values: Sequence[float] | NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """The mean over images and its interval; images without a value (NaN) are left out, and not counted.

    Args:
        values: one for each image.
        seed: of the resamples; the same one gives the same interval.

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
    """A figure made of sums over images, and its interval.

    Args:
        rows: float64 (N, K), one row an image.
        statistic: from sums over images, (..., K), to the figure, (...).
        seed: of the resamples.
    """
    count = len(rows)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(statistic(rows.sum(0)))
    if count == 1:
        return Estimate(value, math.nan, math.nan, 1)

    def of_resamples(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        """(..., N) indices of images to (...) figures."""
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
