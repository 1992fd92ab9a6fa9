"""Contrast-driven aggregation on whole planes: the form for graphs.

`models/cdfa.py` explains the 5x5 kernel that overlapping 3x3 windows amount to. Here its 81 terms are collected one
axis at a time, from planes that the attention's convolution already writes in the right order,

    C[iy, jy, dx][p] = sum over jx - ix = dx of A[iy, ix, jy, jx] at column p - delta_ix,
    K[dy, dx][q] = sum over jy - iy = dy of C[iy, jy, dx] at row q - delta_jy,

and applied one row of taps at a time, so that values are shifted 5 + 5 times instead of 25:

    y[p] = sum over dy of Z_dy[p + dy],   Z_dy[q] = sum over dx of K[dy, dx][q] V[q + dx].

K stands at the row it reads from, which is why its rows move by jy. Every operation works on long contiguous rows.
None is Im2Col or Col2Im, none a softmax over a strided axis, for which ONNX Runtime would transpose. A shift is one
Pad, negative on the other side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.models.cdfa import REACH, SPAN, TAPS, WINDOW, ContrastDrivenFeatureAggregation

__all__ = ["PlaneAggregation", "aggregate_planes", "plane_order"]


def plane_order(heads: int) -> list[list[int]]:
    """Which of the attention's channels (heads, i, j) the planes of `aggregate_planes` are, for each ix.

    Planes run over (reversed iy, jy, jx, head): what is summed over in the softmax, (jy, jx), stands side by side, and
    the reversal of iy turns jy - iy into a sum of indices.
    """
    channels = torch.arange(heads * TAPS * TAPS).view(heads, *(WINDOW,) * 4)  # (head, iy, ix, jy, jx)
    by_column = channels.flip(1).permute(2, 1, 3, 4, 0).flatten(1)
    return [[int(channel) for channel in row] for row in by_column]


def normalise(logits: Tensor) -> Tensor:
    """Softmax over (jy, jx) of planes (B, iy, 9, heads, H, W), axis 2, in operations without a transpose."""
    exponentials = torch.exp(logits - logits.amax(2, keepdim=True))
    return exponentials / exponentials.sum(2, keepdim=True)


def collect_kernel(attention: Sequence[Tensor]) -> Tensor:
    """K of the module docstring: for each ix (B, 3 iy, 3 jy, 3 jx, heads, H, W) -> (B, 5 dy, 5 dx, heads, H, W)."""
    columns = reduce(
        add,
        # Amounts, last axis first: W, H, heads, jx.
        (F.pad(part, (ix - 1, 1 - ix, 0, 0, 0, 0, REACH - ix, ix)) for ix, part in enumerate(attention)),
    )
    return reduce(
        add,
        # W, H, heads, dx, iy.
        (F.pad(columns[:, :, jy], (0, 0, jy - 1, 1 - jy, 0, 0, 0, 0, jy, REACH - jy)) for jy in range(WINDOW)),
    )


def aggregate_planes(logits: Sequence[Tensor], values: Tensor) -> Tensor:
    """Normalise attention and aggregate values by it.

    Args:
        logits: for each ix (B, 27 * heads, H, W), scaled scores in `plane_order`.
        values: (B, channels, H, W), head by head.

    Returns:
        (B, channels, H, W): `models.cdfa.aggregate` of softmax(logits) and values.
    """
    heads = logits[0].shape[1] // (WINDOW * TAPS)
    attention = [normalise(part.unflatten(1, (WINDOW, TAPS, heads))).unflatten(2, (WINDOW, WINDOW)) for part in logits]
    kernel = collect_kernel(attention)
    width = values.shape[-1]
    padded = F.pad(values.unflatten(1, (heads, -1)), (REACH, REACH))
    shifted = [padded[..., b : b + width] for b in range(SPAN)]
    rows = [reduce(add, (kernel[:, a, b].unsqueeze(2) * shifted[b] for b in range(SPAN))) for a in range(SPAN)]
    return reduce(add, (F.pad(row, (0, 0, REACH - a, a - REACH)) for a, row in enumerate(rows))).flatten(1, 2)


class PlaneAggregation(nn.Module):
    """`ContrastDrivenFeatureAggregation` with its BatchNorms folded, for graphs; takes its parts over."""

    def __init__(self, block: ContrastDrivenFeatureAggregation) -> None:
        super().__init__()
        self.inputs, self.values = block.inputs, block.values
        self.projection, self.outputs = block.projection, block.outputs
        sides = (block.attention_foreground, block.attention_background)
        self.scores = nn.ModuleList([nn.ModuleList(_scores(conv, block)) for conv in sides])

    def forward(self, features: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        values = self.values(self.inputs(features))
        for guide, scores in zip((foreground, background), self.scores, strict=True):
            logits = [conv(guide) for conv in scores]  # type: ignore[attr-defined]
            values = self.projection(aggregate_planes(logits, values))
        result: Tensor = self.outputs(values)
        return result


def _scores(conv: nn.Conv2d, block: ContrastDrivenFeatureAggregation) -> Iterator[nn.Conv2d]:
    """The convolution that computes scores, one for each ix, with their scale and the planes' order in its weights."""
    assert conv.bias is not None
    for order in plane_order(block.heads):
        ordered = nn.Conv2d(conv.in_channels, len(order), 1, device=conv.weight.device)
        ordered.weight = nn.Parameter(conv.weight[order] * block.scale, requires_grad=False)
        ordered.bias = nn.Parameter(conv.bias[order] * block.scale, requires_grad=False)
        yield ordered
