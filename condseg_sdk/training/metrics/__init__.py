"""Figures that say how good a segmentation is, one idea a file; docs/evaluation.md explains each of them.

`surface` imports MONAI, which takes a second; so it is not imported here, where training looks for `score`.
"""

from condseg_sdk.training.metrics.overlap import ImageScores, mean_scores, score

__all__ = ["ImageScores", "mean_scores", "score"]
