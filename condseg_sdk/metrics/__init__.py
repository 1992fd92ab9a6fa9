"""Figures that say how good a segmentation is, one idea a file; docs/evaluation.md explains each of them.

`surface` imports MONAI, which takes a second; so it is not imported here, where training looks for `score`.
"""

from condseg_sdk.metrics.overlap import ImageScores, mean_scores, score
from condseg_sdk.user import ensure_user_name

ensure_user_name()  # before `surface` imports MONAI, which asks for the name of the user

__all__ = ["ImageScores", "mean_scores", "score"]
