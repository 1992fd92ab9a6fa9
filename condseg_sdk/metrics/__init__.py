"""Metrics of a segmentation, one idea per file; docs/evaluation.md explains each of them.

`surface` is not imported here: it imports MONAI, which takes a second, and training needs only `score`.
"""

from condseg_sdk.metrics.overlap import ImageScores, mean_scores, score
from condseg_sdk.user import ensure_user_name

ensure_user_name()  # before `surface` imports MONAI, which asks for the name of the user

__all__ = ["ImageScores", "mean_scores", "score"]
