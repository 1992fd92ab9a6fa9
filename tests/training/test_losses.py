"""Losses compared with values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from condseg_sdk.models import ConDSegOutput
from condseg_sdk.training.losses import bce_dice, complementarity, consistency_loss, segmentation_loss, size_weight


def test_bce_dice_of_zero_logits_equals_a_value_computed_by_hand() -> None:
    logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    # BCE of p = 1/2 is ln 2 everywhere; Dice: overlap 1/2, total 2 + 1, smoothing 1 -> 1 - 2 / 4
    assert bce_dice(logits, target).tolist() == pytest.approx([math.log(2) + 0.5], rel=1e-5)


def test_bce_dice_is_per_image_and_zero_for_the_ground_truth() -> None:
    target = (torch.rand(3, 1, 8, 8) > 0.5).float()
    logits = torch.where(target > 0, 50.0, -50.0)
    logits[1] *= -1
    loss = bce_dice(logits, target)
    assert loss[[0, 2]].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert loss[1] > 40


def test_bce_dice_computes_in_float32_for_half_precision_logits() -> None:
    logits = torch.full((1, 1, 4, 4), -30.0, dtype=torch.float16)
    assert bce_dice(logits, torch.zeros(1, 1, 4, 4)).dtype == torch.float32


def test_size_weight_is_per_image_bounded_and_without_gradient() -> None:
    logits = torch.stack([torch.full((1, 4, 4), 0.0), torch.full((1, 4, 4), -50.0)]).requires_grad_()
    weight = size_weight(logits, torch.ones_like(logits))
    assert weight.tolist() == pytest.approx([1 / math.tanh(0.5), 1 / math.tanh(0.05)], rel=1e-5)
    assert weight[1] < 20.1
    assert not weight.requires_grad


def test_an_image_without_a_region_does_not_weigh_more_than_others() -> None:
    logits, target = torch.full((2, 1, 4, 4), -50.0), torch.zeros(2, 1, 4, 4)
    target[1, 0, 0, 0] = 1
    assert size_weight(logits, target).tolist() == pytest.approx([1, 1 / math.tanh(0.05)], rel=1e-5)


def test_complementarity_equals_a_value_computed_by_hand() -> None:
    certain, never = torch.full((1, 1, 2, 2), 50.0), torch.full((1, 1, 2, 2), -50.0)
    half = torch.zeros(1, 1, 2, 2)
    assert complementarity(certain, never, never).item() == pytest.approx(0, abs=1e-6)
    assert complementarity(half, half, half).item() == pytest.approx(0.75, rel=1e-5)
    assert complementarity(certain, certain, half).item() == pytest.approx(1 + 0.5 + 0.5, rel=1e-5)


def test_segmentation_loss_is_the_sum_of_its_terms_and_the_background_is_complementary() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    sure = torch.where(target > 0, 50.0, -50.0)
    right = ConDSegOutput(sure, sure, -sure, torch.full_like(sure, -50.0))
    assert segmentation_loss(right, target).item() == pytest.approx(0, abs=1e-5)
    undecided = ConDSegOutput(*(torch.zeros(1, 1, 4, 4) for _ in range(4)))
    term, beta = bce_dice(torch.zeros(1, 1, 4, 4), target).item(), 1 / math.tanh(0.5)
    assert segmentation_loss(undecided, target).item() == pytest.approx(term * (1 + 2 * beta) + 0.75, rel=1e-5)


def test_consistency_has_no_gradient_through_the_pseudo_labels() -> None:
    plain = torch.tensor([[[[2.0, -1.0]]]], requires_grad=True)
    augmented = torch.tensor([[[[-3.0, 0.5]]]], requires_grad=True)
    target = torch.tensor([[[[1.0, 0.0]]]])
    loss = consistency_loss(plain, augmented, target)

    def bce(x: float, y: float) -> float:
        p = 1 / (1 + math.exp(-x))
        return -y * math.log(p) - (1 - y) * math.log(1 - p)

    towards_augmented = (bce(2.0, 0) + bce(-1.0, 1)) / 2
    towards_plain = (bce(-3.0, 1) + bce(0.5, 0)) / 2
    supervised = (bce_dice(plain, target) + bce_dice(augmented, target)).sum().item()
    assert loss.item() == pytest.approx(supervised + (towards_augmented + towards_plain) / 2, rel=1e-5)
    loss.backward()
    assert plain.grad is not None
    assert torch.isfinite(plain.grad).all()
    assert augmented.grad is not None
    assert torch.isfinite(augmented.grad).all()
