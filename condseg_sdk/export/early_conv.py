"""3x3 convolutions of upsampled maps, computed mostly at the rows of the coarse map, with fewer operations.

Bilinear upsampling is linear and works on rows and columns separately, so a convolution that follows it may move in
between: columns are upsampled, each row of the kernel convolves them at the coarse rows, and one product with a small
matrix upsamples the rows, shifts them by the kernel's row and adds them up,

    conv(upsample(x))[r] = sum over t, s of U[r + t, s] * (kernel row t of columns(x))[s],

where U[q, s] is the weight of row s in the upsampled row q, and 0 beyond the map (the padding of the convolution). With
an upsampling factor of n, the convolution needs 1/n of its operations. The product costs 3 * rows / n operations per
channel and pixel, where rows is the number of rows in one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.export.symbolic import Tape, placeholder

__all__ = ["CUT", "MIX", "EarlyConv", "MergedConv", "row_weights", "write_cut", "write_mix"]

TAPS = 3
CUT, MIX = "CutRows", "MixRows"


def row_weights(out: slice, source: slice, *, rows: int, scale: int) -> Tensor:
    """Compute U of the module docstring for all three rows of the kernel.

    Args:
        out: Rows of the upsampled map.
        source: Rows of the coarse map; all rows that `out` depends on must be among them.
        rows: Number of rows of the coarse map.
        scale: Factor of the upsampling.

    Returns:
        Weights (out rows, 3 * source rows), float32; columns run over (kernel row, coarse row).

    Example:
        >>> row_weights(slice(0, 1), slice(0, 2), rows=2, scale=2)  # row 1 of 4 is 1/3 of the way from row 0 to row 1
        tensor([[0.0000, 0.0000, 1.0000, 0.0000, 0.6667, 0.3333]])
    """
    row = torch.arange(out.start, out.stop).view(-1, 1, 1) + torch.arange(-1, TAPS - 1).view(1, -1, 1)
    coarse = torch.arange(source.start, source.stop)
    last = rows * scale - 1
    # Integers up to here: positions in float32 would have an error as large as the tolerance of the result.
    distance = (row * (rows - 1) - coarse * last).abs()
    inside = (row >= 0) & (row <= last)
    return ((1 - distance.float() / last).clamp(min=0) * inside).flatten(1)


def mix_rows(convolved: Tensor, coarse: Tensor, *, scale: int, index: int, parts: int) -> Tensor:
    """Compute the product of the module docstring.

    Args:
        convolved: Map (B, 3 * channels, source rows, W); its channels run over (channel, kernel row).
        coarse: Map that the rows were taken from, (B, any, rows, any).
        scale: Factor of the upsampling.
        index: Number of the part of the result, from 0.
        parts: Number of parts, see `source_rows`.

    Returns:
        Map (B, channels, rows * scale / parts, W).
    """
    rows = coarse.shape[2]
    if torch.compiler.is_exporting():
        attributes = {"scale": scale, "index": index, "parts": parts}
        batch, channels, _, width = convolved.shape
        shape = (batch, channels // TAPS, rows // parts * scale, width)
        return placeholder(MIX, (convolved, coarse), attributes, shape=shape)
    step = rows // parts * scale
    out = slice(index * step, (index + 1) * step)
    weights = row_weights(out, source_rows(rows, index, parts), rows=rows, scale=scale)
    return torch.matmul(weights.to(convolved), convolved.unflatten(1, (-1, TAPS)).flatten(2, 3))


def cut_rows(x: Tensor, *, index: int, parts: int) -> Tensor:
    """Cut a map to its `source_rows`."""
    source = source_rows(x.shape[2], index, parts)
    if torch.compiler.is_exporting():
        shape = (*x.shape[:2], source.stop - source.start, x.shape[3])
        return placeholder(CUT, (x,), {"index": index, "parts": parts}, shape=shape)
    return x[:, :, source]


def source_rows(rows: int, index: int, parts: int) -> slice:
    """Return the rows of a coarse map that one part of the result depends on: its own and one on each side."""
    step = rows // parts
    return slice(index * step - (index > 0), (index + 1) * step + (index < parts - 1))


def write_cut(tape: Tape, node: Any) -> Any:
    """Write ONNX operators for `cut_rows`, see `symbolic.expand`."""
    (x,) = node.inputs
    start, stop = _source(tape, tape("Shape", x, start=2, end=3), node)
    return tape("Slice", x, start, stop, tape.ints(2))


def write_mix(tape: Tape, node: Any) -> Any:
    """Write ONNX operators for `mix_rows`: `row_weights` step by step, and the product."""
    convolved, coarse = node.inputs
    scale, index, parts = (node.attributes[name].as_int() for name in ("scale", "index", "parts"))
    rows = tape("Shape", coarse, start=2, end=3)
    last = tape("Sub", tape("Mul", rows, tape.ints(scale)), tape.ints(1))
    step = tape("Mul", tape("Div", rows, tape.ints(parts)), tape.ints(scale))
    first = tape("Mul", step, tape.ints(index))
    row = tape("Unsqueeze", _range(tape, first, tape("Add", first, step)), tape.ints(1, 2))
    row = tape("Add", row, tape("Unsqueeze", tape.ints(*range(-1, TAPS - 1)), tape.ints(1)))
    source = _range(tape, *_source(tape, rows, node))
    position = tape("Mul", row, tape("Sub", rows, tape.ints(1)))
    difference = tape("Sub", position, tape("Mul", source, last))
    distance = tape("Max", difference, tape("Neg", difference))
    near = tape("Min", distance, last)  # beyond it the weight is 0 anyway, and float16 could overflow
    share = tape("Div", *(tape("Cast", x, to=tape.ir.DataType.FLOAT) for x in (near, last)))
    inside = tape("And", tape("LessOrEqual", tape.ints(0), row), tape("LessOrEqual", row, last))
    inside = tape("Cast", inside, to=tape.ir.DataType.FLOAT)
    weights = tape("Flatten", tape("Mul", tape("Sub", tape.float(1.0), share), inside), axis=1)
    channels = convolved.shape[1] // TAPS
    size = tape("Concat", tape.ints(0, channels, -1), tape("Shape", convolved, start=3, end=4), axis=0)
    return tape("MatMul", weights, tape("Reshape", convolved, size))


def _range(tape: Tape, start: Any, stop: Any) -> Any:
    axis = tape.ints(0)
    return tape("Range", tape("Squeeze", start, axis), tape("Squeeze", stop, axis), tape.int(1))


def _source(tape: Tape, rows: Any, node: Any) -> tuple[Any, Any]:
    """Write the start and stop of `source_rows`, each int64 (1,)."""
    index, parts = (node.attributes[name].as_int() for name in ("index", "parts"))
    step = tape("Div", rows, tape.ints(parts))
    start = tape("Sub", tape("Mul", step, tape.ints(index)), tape.ints(int(index > 0)))
    stop = tape("Add", tape("Mul", step, tape.ints(index + 1)), tape.ints(int(index < parts - 1)))
    return start, stop


class EarlyConv(nn.Module):
    """Compute `conv(upsample(x, scale))` for a 3x3 convolution with a padding of 1.

    Args:
        weight: Weights of the convolution, (out, in, 3, 3).
        bias: Bias of the convolution, (out,).
        scale: Factor of the upsampling, at least 2.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: int) -> None:
        super().__init__()
        out_channels, in_channels = weight.shape[:2]
        self.scale = scale
        self.taps = nn.Conv2d(in_channels, out_channels * TAPS, (1, TAPS), padding=(0, 1))
        # Output channels run over (channel, kernel row), so that the product sums over adjacent values.
        by_row = weight.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        self.taps.weight = nn.Parameter(by_row.contiguous(), requires_grad=False)
        # The middle row of the kernel is never beyond the map, so the bias belongs to it.
        of_rows = weight.new_zeros(out_channels, TAPS)
        if bias is not None:
            of_rows[:, 1] = bias
        self.taps.bias = nn.Parameter(of_rows.flatten(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, in, H, W) into (B, out, H * scale, W * scale)."""
        return self.part(x, 0, 1)

    def part(self, x: Tensor, index: int, parts: int) -> Tensor:
        """Compute one of several equal parts of the rows; their number divides the rows of the coarse map."""
        cut = cut_rows(x, index=index, parts=parts) if parts > 1 else x
        wide = F.interpolate(cut, scale_factor=(1.0, float(self.scale)), mode="bilinear", align_corners=True)
        return mix_rows(self.taps(wide), x, scale=self.scale, index=index, parts=parts)


class MergedConv(nn.Module):
    """Compute `relu(conv(cat(upsampled parts)))` as the sum of the parts' convolutions, without a concatenation.

    Args:
        conv: A 3x3 convolution with a padding of 1.
        channels: Number of channels of each part; they add up to the input channels of the convolution.
        scales: Factor by which each part is upsampled.
    """

    def __init__(self, conv: nn.Conv2d, channels: Sequence[int], scales: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        bias = conv.bias
        for weight, scale in zip(conv.weight.split(list(channels), 1), scales, strict=True):
            self.convs.append(EarlyConv(weight, bias, scale) if scale > 1 else _plain(weight, bias))
            bias = None

    def forward(self, *parts: Tensor) -> Tensor:
        """Convolve the parts, each at its own size."""
        first, *others = [conv(part) for conv, part in zip(self.convs, parts, strict=True)]
        for other in others:
            first = first + other
        return F.relu(first)


def _plain(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], TAPS, padding=1, bias=False)
    conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    conv.bias = bias
    return conv
