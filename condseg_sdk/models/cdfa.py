"""Contrast-Driven Feature Aggregation (paper, section "Contrast-Driven Feature Aggregation").

The paper unfolds 3x3 windows of the values, multiplies each by its own 9x9 attention and folds the result back by
overlap-add. `aggregate` computes the same sum without copies of windows: collecting the terms by the offset between
source and target turns it into one 5x5 kernel per pixel and head,

    y[p] = sum_d W[p, d] V[p + d],   W[p, d] = sum over (i, j) with delta_j - delta_i = d of A[p - delta_i, i, j],

which needs neither `unfold` nor `fold` (ONNX: Im2Col, Col2Im), a third of the multiplications and a ninth of the
memory. The tests compare values and gradients with a plain unfold and fold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.models.layers import ConvBN, checkpointed

WINDOW = 3  # K of the paper
TAPS = WINDOW * WINDOW
REACH = WINDOW - 1  # number of pixels from the center of the 5x5 kernel to its border
SPAN = 2 * REACH + 1


def _collect(attention: Tensor) -> Tensor:
    """W of the module docstring: (B, heads, 9, 3, 3, H, W) -> (B, heads, 5, 5, H, W)."""
    *_, height, width = attention.shape
    padded = F.pad(attention, (1, 1, 1, 1))
    kernel = attention.new_zeros(*attention.shape[:2], SPAN, SPAN, height, width)
    for i in range(TAPS):
        di, dj = divmod(i, WINDOW)  # delta_i + 1: the weight at p comes from the window centered on p - delta_i
        rows, columns = slice(REACH - di, REACH - di + WINDOW), slice(REACH - dj, REACH - dj + WINDOW)
        shifted = padded[:, :, i, :, :, REACH - di : REACH - di + height, REACH - dj : REACH - dj + width]
        kernel[:, :, rows, columns] += shifted
    return kernel


def _collect_backward(grad: Tensor) -> Tensor:
    """Adjoint of `_collect`: (B, heads, 5, 5, H, W) -> (B, heads, 9, 3, 3, H, W)."""
    *_, height, width = grad.shape
    padded = F.pad(grad, (1, 1, 1, 1))
    parts = []
    for i in range(TAPS):
        di, dj = divmod(i, WINDOW)
        rows, columns = slice(REACH - di, REACH - di + WINDOW), slice(REACH - dj, REACH - dj + WINDOW)
        parts.append(padded[:, :, rows, columns, di : di + height, dj : dj + width])
    return torch.stack(parts, 2)


def _apply(kernel: Tensor, values: Tensor) -> Tensor:
    """y[p] = sum_d W[p, d] V[p + d]: (B, heads, 5, 5, H, W), (B, heads, D, H, W) -> (B, heads, D, H, W)."""
    *_, height, width = values.shape
    padded = F.pad(values, (REACH,) * 4)
    result = torch.zeros_like(values)
    for a in range(SPAN):
        for b in range(SPAN):
            result.addcmul_(kernel[:, :, a, b, None], padded[..., a : a + height, b : b + width])
    return result


class _Aggregate(torch.autograd.Function):
    """`aggregate` with a backward pass in place, where autograd would make 25 padded copies of the gradient."""

    @staticmethod
    def forward(ctx: Any, attention: Tensor, values: Tensor) -> Tensor:
        kernel = _collect(attention)
        ctx.save_for_backward(kernel, values)
        return _apply(kernel, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        kernel, values = ctx.saved_tensors
        grad = grads[0].contiguous()  # slices of a channels-last gradient would be strided
        *_, height, width = values.shape
        padded = F.pad(values, (REACH,) * 4)
        grad_kernel = torch.empty_like(kernel)
        grad_padded = torch.zeros_like(padded)
        for a in range(SPAN):
            for b in range(SPAN):
                window = (..., slice(a, a + height), slice(b, b + width))
                torch.sum(grad * padded[window], 2, out=grad_kernel[:, :, a, b])
                grad_padded[window].addcmul_(kernel[:, :, a, b, None], grad)
        return _collect_backward(grad_kernel), grad_padded[..., REACH:-REACH, REACH:-REACH]


def aggregate(attention: Tensor, values: Tensor) -> Tensor:
    """Aggregate values over 3x3 windows by the attention of each pixel, and add the overlapping windows.

    Args:
        attention: Attention (B, heads, 9, 9, H, W), float, normalized over j. Entry [i, j] at pixel q weights value j
            of the window in its output i; positions are counted row by row.
        values: Values (B, heads, D, H, W) of the same dtype. They are zero outside the map.

    Returns:
        Aggregated values (B, heads, D, H, W): fold(attention @ unfold(values)) with 3x3 windows and a padding of 1.

    Example:
        >>> a = torch.full((1, 1, 9, 9, 4, 4), 1 / 9)
        >>> aggregate(a, torch.ones(1, 1, 2, 4, 4)).shape
        torch.Size([1, 1, 2, 4, 4])
    """
    attention = attention.unflatten(3, (WINDOW, WINDOW))
    if torch.is_grad_enabled() and (attention.requires_grad or values.requires_grad):
        result: Tensor = _Aggregate.apply(attention, values.contiguous())  # type: ignore[no-untyped-call]
        return result
    return _apply(_collect(attention), values.contiguous())


class ContrastDrivenFeatureAggregation(nn.Module):
    """Mix neighboring pixels by attention from the foreground's features, then from the background's.

    Args:
        in_channels: Number of channels of the features to aggregate.
        channels: Number of channels of the result and of the two guides.
        heads: Number of attention heads, a divisor of `channels`.
    """

    def __init__(self, in_channels: int, channels: int, *, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.inputs = nn.Sequential(ConvBN(in_channels, channels), ConvBN(channels, channels))
        self.values = nn.Conv2d(channels, channels, 1)
        self.attention_foreground = nn.Conv2d(channels, heads * TAPS * TAPS, 1)
        self.attention_background = nn.Conv2d(channels, heads * TAPS * TAPS, 1)
        self.projection = nn.Conv2d(channels, channels, 1)
        self.outputs = nn.Sequential(ConvBN(channels, channels), ConvBN(channels, channels))

    def _attend(self, guide: Tensor, scores: nn.Conv2d, values: Tensor) -> Tensor:
        assert scores.bias is not None
        # Scaling the weights is cheaper than scaling the scores: there are 81 scores per head and pixel.
        logits = F.conv2d(guide, scores.weight * self.scale, scores.bias * self.scale)
        attention = logits.unflatten(1, (self.heads, TAPS, TAPS)).contiguous().softmax(3)
        mixed = aggregate(attention, values.unflatten(1, (self.heads, -1)))
        projected: Tensor = self.projection(mixed.flatten(1, 2))
        return projected

    def _foreground(self, guide: Tensor, values: Tensor) -> Tensor:
        return self._attend(guide, self.attention_foreground, values)

    def _background(self, guide: Tensor, values: Tensor) -> Tensor:
        return self._attend(guide, self.attention_background, values)

    def forward(self, features: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """Aggregate features (B, in_channels, H, W) with guides (B, channels, H, W) into (B, channels, H, W)."""
        values = self.values(self.inputs(features))
        # 81 weights per head and pixel take most of the memory, so the backward pass computes them again.
        values = checkpointed(self._foreground, foreground, values)
        values = checkpointed(self._background, background, values)
        result: Tensor = self.outputs(values)
        return result
