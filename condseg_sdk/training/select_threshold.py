"""The threshold of a checkpoint: the one with the best mean IoU on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from condseg_sdk.data import CachedPairs
from condseg_sdk.metrics import mean_scores, score
from condseg_sdk.models import ConDSeg
from condseg_sdk.preprocessing import Preprocessing, sigmoid

__all__ = ["THRESHOLDS", "choose_threshold", "ground_truth", "predict_logits", "trivial_baseline_iou"]

THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))


@torch.inference_mode()
def predict_logits(
    network: ConDSeg, pairs: CachedPairs, preprocessing: Preprocessing, *, batch_size: int = 8
) -> list[NDArray[np.float32]]:
    """Predict the logits, float32 (h, w), of each pair at the network's size.

    Args:
        network: Network, which is moved to the CPU and put into eval mode.
        pairs: Pairs of the validation split, at the network's size.
        preprocessing: Preprocessing of the checkpoint.
        batch_size: Number of images per forward pass.
    """
    network.eval().cpu()
    logits: list[NDArray[np.float32]] = []
    for start in range(0, len(pairs), batch_size):
        images = pairs.values[start : start + batch_size, :3].permute(0, 2, 3, 1).numpy()
        x = torch.from_numpy(preprocessing.normalize(images))
        logits += list(network(x).mask[:, 0].numpy())
    return logits


def choose_threshold(logits: Sequence[NDArray[np.float32]], pairs: CachedPairs) -> dict[str, float]:
    """Return the best of the thresholds 0.2, 0.25 ... 0.8 and its metrics; in a tie, the one nearest to 0.5.

    Args:
        logits: Logits of each pair, as `predict_logits` returns them.
        pairs: Pairs of the validation split, at the network's size.

    Returns:
        {"mIoU": ..., "mDSC": ..., "threshold": ...}: means over images at the network's size, in [0, 1].
    """
    probabilities = [sigmoid(x) for x in logits]
    masks = ground_truth(pairs)

    def means(threshold: float) -> dict[str, float]:
        return mean_scores(score(p >= np.float32(threshold), m) for p, m in zip(probabilities, masks, strict=True))

    metrics = {threshold: means(threshold) for threshold in THRESHOLDS}
    best = max(THRESHOLDS, key=lambda threshold: (metrics[threshold]["mIoU"], -abs(threshold - 0.5)))
    return {**metrics[best], "threshold": best}


def ground_truth(pairs: CachedPairs) -> list[NDArray[np.bool_]]:
    """Return the mask of each pair, bool (h, w), at the network's size."""
    return list(pairs.values[:, 3].numpy() > 0)


def trivial_baseline_iou(pairs: CachedPairs) -> float:
    """Return the mean IoU of predictions that ignore the image: all full or all empty, whichever is better."""
    masks = ground_truth(pairs)
    return max(mean_scores(score(np.full_like(m, full), m) for m in masks)["mIoU"] for full in (True, False))
