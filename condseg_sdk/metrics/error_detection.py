"""Error detection: how well a map of uncertainty finds the wrong pixels of a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.metrics.ranking import auroc

__all__ = ["ErrorDetection", "score_error_detection"]

TOP = 0.05


@dataclass(frozen=True)
class ErrorDetection:
    """Scores of error detection in one image; NaN where they are undefined.

    Attributes:
        auroc: Probability that a wrong pixel is more uncertain than a right one, 0.5 for guessing. NaN without wrong
            pixels, and where all are wrong.
        in_top5: Share of the wrong pixels among the most uncertain 5 % of all, 0.05 for guessing. NaN without wrong
            pixels.
    """

    auroc: float
    in_top5: float


def score_error_detection(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_]) -> ErrorDetection:
    """Measure how well a map of uncertainty finds wrong pixels.

    Args:
        uncertainty: Uncertainty, float (H, W), larger where the prediction is less certain.
        wrong: Pixels where the prediction differs from the ground truth, bool (H, W).

    Example:
        >>> score_error_detection(np.float32([[0.9, 0.1, 0.2, 0.3]]), np.array([[True, False, False, False]])).auroc
        1.0
    """
    values, is_wrong = uncertainty.ravel(), wrong.ravel()
    count = np.count_nonzero(is_wrong)
    if count == 0:
        return ErrorDetection(math.nan, math.nan)
    area = math.nan if count == values.size else float(auroc(values[is_wrong], values[~is_wrong]))
    return ErrorDetection(area, float(_share_in_top(values, is_wrong) / count))


def _share_in_top(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_]) -> float:
    """Return the expected number of wrong pixels in the top, with ties in random order."""
    places = TOP * uncertainty.size
    edge = np.partition(uncertainty, -math.ceil(places))[-math.ceil(places)]
    above, level = uncertainty > edge, uncertainty == edge
    share = (places - np.count_nonzero(above)) / np.count_nonzero(level)
    return float(np.count_nonzero(wrong & above) + share * np.count_nonzero(wrong & level))
