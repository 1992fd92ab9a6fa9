"""The aggregation without unfold and fold, held against a plain unfold and fold: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from condseg_sdk.models.cdfa import ContrastDrivenFeatureAggregation, aggregate

# batch, heads, channels a head, height, width
SHAPES = [(1, 1, 1, 1, 1), (2, 4, 3, 3, 5), (1, 2, 5, 1, 7), (2, 3, 2, 6, 2), (1, 4, 32, 16, 16)]


def by_unfold_and_fold(attention: Tensor, values: Tensor) -> Tensor:
    """The paper's wording, one step a line."""
    batch, heads, depth, height, width = values.shape
    windows = F.unfold(values.reshape(batch, heads * depth, height, width), 3, padding=1)
    windows = windows.reshape(batch, heads, depth, 9, height * width)
    weights = attention.reshape(batch, heads, 9, 9, height * width)
    mixed = torch.einsum("bhijn,bhdjn->bhdin", weights, windows)
    folded = F.fold(mixed.reshape(batch, heads * depth * 9, height * width), (height, width), 3, padding=1)
    return folded.reshape(values.shape)


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    batch, heads, depth, height, width = shape
    generator = torch.Generator().manual_seed(sum(shape))
    scores = torch.randn(batch, heads, 9, 9, height, width, dtype=dtype, generator=generator)
    values = torch.randn(batch, heads, depth, height, width, dtype=dtype, generator=generator)
    return scores.softmax(3).requires_grad_(), values.requires_grad_()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_equal_those_of_unfold_and_fold(shape: tuple[int, ...]) -> None:
    attention, values = inputs(shape)
    expected = by_unfold_and_fold(attention, values)
    torch.testing.assert_close(aggregate(attention, values), expected, atol=1e-5, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(aggregate(attention, values), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_equal_those_of_unfold_and_fold(shape: tuple[int, ...]) -> None:
    attention, values = inputs(shape)
    upstream = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(aggregate(attention, values), (attention, values), upstream)
    expected = torch.autograd.grad(by_unfold_and_fold(attention, values), (attention, values), upstream)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (1, 2, 2, 3, 2)], ids=str)
def test_gradients_pass_gradcheck(shape: tuple[int, ...]) -> None:
    assert torch.autograd.gradcheck(aggregate, inputs(shape, torch.float64))


def test_values_may_be_in_channels_last_order() -> None:
    attention, values = inputs((2, 4, 3, 3, 5))
    turned = values.detach().transpose(-1, -2).contiguous().transpose(-1, -2).requires_grad_()
    torch.testing.assert_close(aggregate(attention, turned), by_unfold_and_fold(attention, values))


def test_one_window_equals_the_sum_computed_by_hand() -> None:
    """One pixel hands its value on: output i of the window centered on the middle takes that window's value j."""
    attention, values = torch.zeros(1, 1, 9, 9, 5, 5), torch.zeros(1, 1, 1, 5, 5)
    values[..., 1, 1] = 3.0  # upper left in the window around (2, 2), position 0 row by row
    attention[0, 0, 8, 0, 2, 2] = 1.0  # to its lower right, (3, 3)
    result = aggregate(attention, values)[0, 0, 0]
    assert result[3, 3] == 3.0
    assert result.count_nonzero() == 1


def test_the_module_equals_the_steps_of_the_paper() -> None:
    torch.manual_seed(0)
    module = ContrastDrivenFeatureAggregation(6, 8, heads=2).eval()
    features, foreground, background = torch.randn(2, 6, 5, 4), torch.randn(2, 8, 5, 4), torch.randn(2, 8, 5, 4)
    with torch.inference_mode():
        y = module.values(module.inputs(features))
        for guide, scores in ((foreground, module.attention_foreground), (background, module.attention_background)):
            attention = (scores(guide).unflatten(1, (2, 9, 9)) * 4**-0.5).softmax(3)
            y = module.projection(by_unfold_and_fold(attention, y.unflatten(1, (2, 4))).flatten(1, 2))
        torch.testing.assert_close(module(features, foreground, background), module.outputs(y))
