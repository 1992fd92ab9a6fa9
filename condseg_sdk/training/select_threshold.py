"""The threshold a checkpoint is given: the one with the best mean IoU on the validation part."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from condseg_sdk.data import CachedPairs
from condseg_sdk.metrics import mean_scores, score
from condseg_sdk.models import ConDSeg
from condseg_sdk.preprocessing import Preprocessing

__all__ = ["THRESHOLDS", "choose_threshold", "trivial_baseline_iou"]

THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))


@torch.inference_mode()
def choose_threshold(
    network: ConDSeg, pairs: CachedPairs, preprocessing: Preprocessing, *, batch_size: int = 8
) -> dict[str, float]:
    """The best of 0.2, 0.25 ... 0.8, of equally good ones the nearest to 0.5, and the figures there.

    Args:
        network: is put into eval mode on the CPU.
        pairs: of the validation part, at the network's size.
        preprocessing: of the checkpoint.

    Returns:
        {"mIoU": ..., "mDSC": ..., "threshold": ...}, means over images at the network's size.
    """
    network.eval().cpu()
    probabilities: list[NDArray[np.float32]] = []
    for start in range(0, len(pairs), batch_size):
        images = pairs.values[start : start + batch_size, :3].permute(0, 2, 3, 1).numpy()
        x = torch.from_numpy(preprocessing.normalize(images))
        probabilities += list(network(x).mask[:, 0].sigmoid().numpy())
    masks = list(pairs.values[:, 3].numpy() > 0)

    def means(threshold: float) -> dict[str, float]:
        return mean_scores(score(p >= np.float32(threshold), m) for p, m in zip(probabilities, masks, strict=True))

    figures = {threshold: means(threshold) for threshold in THRESHOLDS}
    best = max(THRESHOLDS, key=lambda threshold: (figures[threshold]["mIoU"], -abs(threshold - 0.5)))
    return {**figures[best], "threshold": best}


def trivial_baseline_iou(pairs: CachedPairs) -> float:
    """The mean IoU of an answer that does not look at the images: all masks full, or all empty, whichever is better."""
    masks = list(pairs.values[:, 3].numpy() > 0)
    return max(mean_scores(score(np.full_like(m, full), m) for m in masks)["mIoU"] for full in (True, False))
