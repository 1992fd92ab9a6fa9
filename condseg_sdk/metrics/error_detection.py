"""How well a map of uncertainty finds the wrong pixels of a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["ErrorsFound", "score_error_detection"]

TOP = 0.05


@dataclass(frozen=True)
class ErrorsFound:
    """How well uncertainty points at errors in one image; NaN where that is undefined.

    Attributes:
        auroc: chance that a wrong pixel is more uncertain than a right one, 0.5 for guessing. NaN without wrong pixels,
            and where all are wrong.
        in_top5: share of the wrong pixels among the most uncertain 5 % of all, 0.05 for guessing. NaN without wrong
            pixels.
    """

    auroc: float
    in_top5: float


def score_error_detection(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_]) -> ErrorsFound:
    """Compare a map of uncertainty with the pixels that are wrong.

    Args:
        uncertainty: float (H, W), larger where the prediction is less sure.
        wrong: bool (H, W), where the prediction differs from the ground truth.

    Example:
        >>> score_error_detection(np.float32([[0.9, 0.1, 0.2, 0.3]]), np.array([[True, False, False, False]])).auroc
        1.0
    """
    values, is_wrong = uncertainty.ravel(), wrong.ravel()
    count = np.count_nonzero(is_wrong)
    if count == 0:
        return ErrorsFound(math.nan, math.nan)
    return ErrorsFound(_auroc(values, is_wrong, int(count)), float(_share_in_top(values, is_wrong) / count))


def _auroc(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_], count: int) -> float:
    """The Mann-Whitney U statistic as a share of all pairs of a wrong and a right pixel; a tie counts half.

    In float64 by ranks: torchmetrics' area under the curve adds up a million steps in float32.
    """
    if count == wrong.size:
        return math.nan
    u = rankdata(uncertainty)[wrong].sum() - count * (count + 1) / 2
    return float(u / (count * (wrong.size - count)))


def _share_in_top(uncertainty: NDArray[np.float32], wrong: NDArray[np.bool_]) -> float:
    """Number of wrong pixels in the top; among pixels of the same uncertainty each is as likely there as any other."""
    places = TOP * uncertainty.size
    edge = np.partition(uncertainty, -math.ceil(places))[-math.ceil(places)]
    above, level = uncertainty > edge, uncertainty == edge
    share = (places - np.count_nonzero(above)) / np.count_nonzero(level)
    return float(np.count_nonzero(wrong & above) + share * np.count_nonzero(wrong & level))
