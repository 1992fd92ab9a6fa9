"""The losses of both stages (paper, section "Training"). All of them take logits and compute in float32.

Targets are masks in {0, 1} of the same shape (B, 1, H, W) as the logits. Results are scalars, means over the batch,
unless stated otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from condseg_sdk.models import ConDSegOutput

DICE_SMOOTHING = 1.0
MIN_MEAN_FOREGROUND = 0.05  # limits beta = 1 / tanh(mean) to 20: it would be infinite for an empty map


def bce_dice(logits: Tensor, target: Tensor, *, foreground_weight: float = 1.0) -> Tensor:
    """Return binary cross-entropy plus Dice loss per image: L_mask of the paper before the mean over the batch.

    Args:
        logits: Logits (B, 1, H, W).
        target: Masks (B, 1, H, W) in {0, 1}.
        foreground_weight: Weight of the target's pixels in the cross-entropy; 1 in the paper.

    Returns:
        Losses (B,).
    """
    logits, target = logits.float(), target.float()
    weight = None if foreground_weight == 1 else torch.tensor(foreground_weight, device=logits.device)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight).mean((1, 2, 3))
    probability = logits.sigmoid()
    overlap = (probability * target).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    return bce + 1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)


def size_weight(logits: Tensor, target: Tensor) -> Tensor:
    """Return beta = 1 / tanh(mean of the map) per image, (B,), without gradient. Small regions get more weight.

    Where the target is empty, beta is 1: there is no small region to protect, and the largest weight of all would make
    the network mark too little in other images.

    Args:
        logits: Logits (B, 1, H, W) of the foreground or background map.
        target: Masks (B, 1, H, W) in {0, 1} of the same map.
    """
    mean = logits.detach().float().sigmoid().mean((1, 2, 3))
    beta = 1 / torch.tanh(mean.clamp(min=MIN_MEAN_FOREGROUND))
    return torch.where(target.sum((1, 2, 3)) > 0, beta, torch.ones_like(beta))


def complementarity(foreground: Tensor, background: Tensor, uncertainty: Tensor) -> Tensor:
    """Return L_compl = mean(Mfg Mbg + Mfg Muc + Mbg Muc): the three maps should not overlap."""
    fg, bg, uc = (x.float().sigmoid() for x in (foreground, background, uncertainty))
    return (fg * bg + fg * uc + bg * uc).mean()


def segmentation_loss(output: ConDSegOutput, target: Tensor, *, foreground_weight: float = 1.0) -> Tensor:
    """Return the loss of stage 2: L_mask + beta1 L_fg + beta2 L_bg + L_compl.

    Args:
        output: Logits of all four maps, from `forward(images, aux=True)`.
        target: Masks (B, 1, H, W) in {0, 1}. The target of the background map is the complement.
        foreground_weight: Weight of the foreground pixels in the cross-entropy of mask and foreground map.
    """
    assert output.foreground is not None
    assert output.background is not None
    assert output.uncertainty is not None
    mask = bce_dice(output.mask, target, foreground_weight=foreground_weight)
    foreground_loss = bce_dice(output.foreground, target, foreground_weight=foreground_weight)
    foreground = size_weight(output.foreground, target) * foreground_loss
    background = size_weight(output.background, 1 - target) * bce_dice(output.background, 1 - target)
    compl = complementarity(output.foreground, output.background, output.uncertainty)
    return (mask + foreground + background).mean() + compl


def consistency_loss(plain: Tensor, augmented: Tensor, target: Tensor, *, foreground_weight: float = 1.0) -> Tensor:
    """Return the loss of stage 1: L_mask of both views plus the mean of their cross-entropies with each other.

    In the latter the other view is binarized at 0.5 and has no gradient.

    Args:
        plain: Logits (B, 1, H, W) for the images.
        augmented: Logits for the same images after strong photometric augmentation.
        target: Masks (B, 1, H, W) in {0, 1}.
        foreground_weight: Weight of the target's pixels in the supervised cross-entropies.
    """
    plain, augmented = plain.float(), augmented.float()
    views = [bce_dice(view, target, foreground_weight=foreground_weight) for view in (plain, augmented)]
    supervised = (views[0] + views[1]).mean()
    towards_augmented = F.binary_cross_entropy_with_logits(plain, (augmented.detach() > 0).float())
    towards_plain = F.binary_cross_entropy_with_logits(augmented, (plain.detach() > 0).float())
    return supervised + (towards_augmented + towards_plain) / 2
