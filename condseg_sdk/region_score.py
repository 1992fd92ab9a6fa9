"""The score of an image: how likely it is that it has a region at all, from the network's logits."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import OptionError
from condseg_sdk.options import check_number

__all__ = ["UNCALIBRATED", "ScoreCalibration", "peak_logit"]

PEAK_SHARE = 0.005
"""Share of the pixels whose logits are averaged: a single pixel is noisy, and small regions must count."""


@dataclass(frozen=True)
class ScoreCalibration:
    """A logistic curve from the highest logits of an image to the probability that it has a region.

    The probability is 1 / (1 + exp(-(slope * peak + intercept))), where peak is `peak_logit`. It grows with the peak,
    so that calibration never changes the order of images.

    Args:
        slope: Slope of the curve, above 0.
        intercept: Value at a peak of 0.

    Raises:
        OptionError: A value is not a finite number, or the slope is not above 0.

    Example:
        >>> round(ScoreCalibration(slope=0.5, intercept=-1.0)(4.0), 3)
        0.731
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        for name, above in (("slope", 0.0), ("intercept", -math.inf)):
            object.__setattr__(self, name, check_number(name, getattr(self, name), above=above, below=math.inf))

    def __call__(self, peak: float) -> float:
        """Return the probability that an image with this peak has a region, in [0, 1]."""
        return float((1 + np.tanh((self.slope * peak + self.intercept) / 2)) / 2)  # unlike exp, tanh cannot overflow

    def to_dict(self) -> dict[str, float]:
        """Return plain JSON values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> ScoreCalibration:
        """Read what `to_dict` returned.

        Raises:
            OptionError: A key is missing or unknown, or a value is not allowed.
        """
        if not isinstance(values, Mapping) or set(values) != {"slope", "intercept"}:
            raise OptionError(f"score={reprlib.repr(values)} must have the keys slope and intercept")
        return cls(**values)


UNCALIBRATED = ScoreCalibration(slope=1.0, intercept=0.0)
"""The peak as it is, for checkpoints without a calibration: high for most images, in the right order all the same."""


def peak_logit(logits: NDArray[np.float32]) -> float:
    """Compute the mean of the highest 0.5 % of an image's logits, at least one.

    Args:
        logits: Logits, float32 (h, w).

    Example:
        >>> peak_logit(np.float32([[-4, 3, 1]]))
        3.0
    """
    count = max(1, round(PEAK_SHARE * logits.size))
    return float(np.partition(logits, -count, axis=None)[-count:].mean(dtype=np.float64))
