"""Contrast-driven aggregation on whole planes: the form for graphs.

`models/cdfa.py` explains the 5x5 kernel that is equivalent to overlapping 3x3 windows. Here its 81 terms are collected
one axis at a time, from planes that the convolution for the attention already writes in the right order,

    C[iy, jy, dx][p] = sum over jx - ix = dx of A[iy, ix, jy, jx] at column p - delta_ix,
    K[dy, dx][q] = sum over jy - iy = dy of C[iy, jy, dx] at row q - delta_jy,

and applied one row of taps at a time, so values are shifted 4 + 4 times instead of 24:

    y[p] = sum over dy of Z_dy[p + dy],   Z_dy[q] = sum over dx of K[dy, dx][q] V[q + dx].

K is stored at the row that it reads from, so its rows move by jy. All operations work on long contiguous rows, without
Im2Col, Col2Im or a softmax over a strided axis, for which ONNX Runtime would transpose. A shift is one Pad that is
negative on the other side.

The exporter sees one node, `AggregatePlanes`, instead of hundreds (`symbolic.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from condseg_sdk.export.early_conv import MergedConv
from condseg_sdk.export.symbolic import Tape, placeholder
from condseg_sdk.models.cdfa import REACH, SPAN, TAPS, WINDOW, ContrastDrivenFeatureAggregation, aggregate

__all__ = ["NODE", "PlaneAggregation", "aggregate_planes", "plane_order", "write_aggregation"]

NODE = "AggregatePlanes"


def plane_order(heads: int) -> list[list[int]]:
    """Return the channels of the attention (heads, i, j) in the order of the planes of `aggregate_planes`, for each ix.

    Planes run over (reversed iy, jy, jx, head): the softmax sums over (jy, jx), which are adjacent, and the reversal of
    iy turns jy - iy into a sum of indices.
    """
    channels = torch.arange(heads * TAPS * TAPS).view(heads, *(WINDOW,) * 4)  # (head, iy, ix, jy, jx)
    by_column = channels.flip(1).permute(2, 1, 3, 4, 0).flatten(1)
    return [[int(channel) for channel in row] for row in by_column]


def aggregate_planes(logits: Sequence[Tensor], values: Tensor, heads: int) -> Tensor:
    """Normalize the attention and aggregate values by it.

    Args:
        logits: Scaled scores in `plane_order`, for each ix (B, 27 * heads, H, W).
        values: Values (B, channels, H, W), head by head.
        heads: Number of attention heads.

    Returns:
        Aggregated values (B, channels, H, W): `models.cdfa.aggregate` of softmax(logits) and values.
    """
    if torch.compiler.is_exporting():
        return placeholder(NODE, (*logits, values), {"heads": heads}, shape=values.shape)
    stacked = torch.stack([part.unflatten(1, (*(WINDOW,) * 3, heads)) for part in logits], 1)
    scores = stacked.flip(2).permute(0, 5, 2, 1, 3, 4, 6, 7).flatten(4, 5).flatten(2, 3)  # (B, head, i, j, H, W)
    return aggregate(scores.softmax(3), values.unflatten(1, (heads, -1))).flatten(1, 2)


def write_aggregation(tape: Tape, node: Any) -> Any:
    """Write ONNX operators for one node, see `symbolic.expand`."""
    *logits, values = node.inputs
    return _aggregate(Planes(tape, values), logits, values, node.attributes["heads"].as_int())


class Planes:
    """Makes ONNX nodes for planes (B, ..., H, W) whose height and width may be dynamic."""

    def __init__(self, tape: Tape, values: Any) -> None:
        self.op, self.ints = tape, tape.ints
        size = [] if values.shape is None else list(values.shape)[-2:]
        known = len(size) == 2 and all(isinstance(side, int) for side in size)
        self.size = tape.ints(*size) if known else tape("Shape", values, start=2, end=4)

    def view(self, x: Any, *leading: int) -> Any:
        """Reshape (B, channels, H, W) to (B, *leading, H, W)."""
        return self.op("Reshape", x, self.op("Concat", self.ints(0, *leading), self.size, axis=0))

    def pad(self, x: Any, rank: int, amounts: dict[int, tuple[int, int]]) -> Any:
        """Add zeros before and after along axes; negative amounts crop."""
        before, after = zip(*(amounts.get(axis, (0, 0)) for axis in range(rank)), strict=True)
        return self.op("Pad", x, self.ints(*before, *after))

    def shift(self, x: Any, axis: int, by: int) -> Any:
        """Compute y[p] = x[p + by] along axis 3 (rows) or 4 (columns) of (B, heads, D, H, W), zero outside."""
        return self.pad(x, 5, {axis: (-by, by)}) if by else x

    def pick(self, x: Any, index: int, axis: int) -> Any:
        """Take one index of an axis and drop the axis."""
        return self.op("Gather", x, self.op.int(index), axis=axis)

    def sum(self, terms: Sequence[Any]) -> Any:
        """Add all terms."""
        return reduce(lambda a, b: self.op("Add", a, b), terms)


def _aggregate(planes: Planes, logits: Sequence[Any], values: Any, heads: int) -> Any:
    kernel = planes.view(_kernel(planes, logits, heads), SPAN * SPAN, heads, 1)
    taps = [planes.pick(kernel, tap, 1) for tap in range(SPAN * SPAN)]
    channels = values.shape[1]
    source = planes.view(values, heads, channels // heads)
    shifted = [planes.shift(source, 4, dx) for dx in range(-REACH, REACH + 1)]
    z = [planes.sum([planes.op("Mul", taps[SPAN * a + b], shifted[b]) for b in range(SPAN)]) for a in range(SPAN)]
    above = planes.shift(planes.op("Add", z[1], planes.shift(z[0], 3, -1)), 3, -1)
    below = planes.shift(planes.op("Add", z[3], planes.shift(z[4], 3, 1)), 3, 1)
    return planes.view(planes.sum([z[2], above, below]), channels)


def _kernel(planes: Planes, logits: Sequence[Any], heads: int) -> Any:
    """Compute K of the module docstring: for each ix (B, 27 * heads, H, W) -> (B, dy, dx, head, H, W)."""
    columns = planes.sum([_columns(planes, part, ix, heads) for ix, part in enumerate(logits)])
    rows = []
    for jy in range(WINDOW):
        part = planes.pick(columns, jy, 2)  # (B, iy, dx, head, H, W)
        rows.append(planes.pad(part, 6, {1: (jy, REACH - jy), 4: (jy - 1, 1 - jy)}))
    return planes.sum(rows)


def _columns(planes: Planes, logits: Any, ix: int, heads: int) -> Any:
    """Normalize the attention of one ix and place it: (B, 27 * heads, H, W) -> (B, iy, jy, dx, head, H, W)."""
    axis = planes.ints(2)
    grouped = planes.op("Reshape", logits, planes.ints(0, WINDOW, TAPS, heads, -1))
    exponentials = planes.op("Exp", planes.op("Sub", grouped, planes.op("ReduceMax", grouped, axis)))
    attention = planes.op("Div", exponentials, planes.op("ReduceSum", exponentials, axis))
    attention = planes.view(attention, *(WINDOW,) * 3, heads)
    return planes.pad(attention, 7, {3: (REACH - ix, ix), 6: (ix - 1, 1 - ix)})


class PlaneAggregation(nn.Module):
    """`ContrastDrivenFeatureAggregation` for graphs, made from the parts of one whose BatchNorms are folded."""

    def __init__(self, block: ContrastDrivenFeatureAggregation) -> None:
        super().__init__()
        self.heads = block.heads
        first, second = block.inputs
        conv = first[0]  # type: ignore[index]
        assert isinstance(conv, nn.Conv2d)
        coarser = conv.in_channels - conv.out_channels
        parts = [conv.out_channels, coarser] if coarser else [conv.out_channels]
        self.inputs = MergedConv(conv, parts, (1, 2)[: len(parts)])
        self.second, self.values = second, block.values
        self.projection, self.outputs = block.projection, block.outputs
        sides = (block.attention_foreground, block.attention_background)
        self.scores = nn.ModuleList([nn.ModuleList(_scores(conv, block)) for conv in sides])

    def forward(self, features: Sequence[Tensor], foreground: Tensor, background: Tensor) -> Tensor:
        """Aggregate the features of the level and, if it is not the deepest, the coarser result, not yet upsampled."""
        values = self.values(self.second(self.inputs(*features)))
        for guide, scores in zip((foreground, background), self.scores, strict=True):
            logits = [conv(guide) for conv in scores]  # type: ignore[attr-defined]
            values = self.projection(aggregate_planes(logits, values, self.heads))
        result: Tensor = self.outputs(values)
        return result


def _scores(conv: nn.Conv2d, block: ContrastDrivenFeatureAggregation) -> Iterator[nn.Conv2d]:
    """Split the convolution for the scores into one for each ix, with scale and order of the planes in its weights."""
    assert conv.bias is not None
    for order in plane_order(block.heads):
        ordered = nn.Conv2d(conv.in_channels, len(order), 1, device=conv.weight.device)
        ordered.weight = nn.Parameter(conv.weight[order] * block.scale, requires_grad=False)
        ordered.bias = nn.Parameter(conv.bias[order] * block.scale, requires_grad=False)
        yield ordered
