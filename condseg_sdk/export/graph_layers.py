"""Layers in the form that graph runtimes run fastest, made from the equivalent ones in `models/layers.py`.

ONNX Runtime stores the maps of convolutions in blocks of channels, and every change of this layout takes time. It
reduces one axis of a single image in one thread. Both are avoided here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.export.early_conv import EarlyConv, MergedConv
from condseg_sdk.export.plane_aggregation import PlaneAggregation, Planes
from condseg_sdk.export.symbolic import Tape, placeholder
from condseg_sdk.models.cdfa import ContrastDrivenFeatureAggregation
from condseg_sdk.models.decoder import OutputBlock
from condseg_sdk.models.layers import ChannelAttention, DilatedConvBlock, SpatialAttention
from condseg_sdk.models.sid import FeatureGuide

__all__ = ["GROUPED", "use_graph_layers", "write_grouped"]

GROUPED = "GroupChannels"
GROUP = 8  # channels reduced at once; threads share the groups
PARTS = 4  # number of parts of a full-resolution map; the number of rows is a multiple of it


def use_graph_layers(module: nn.Module) -> None:
    """Replace layers of `module` with equivalent ones for graphs, in place, after BatchNorm layers were folded."""
    for name, child in module.named_children():
        if isinstance(child, ContrastDrivenFeatureAggregation):
            setattr(module, name, PlaneAggregation(child))
        elif isinstance(child, DilatedConvBlock):
            setattr(module, name, JoinedDilatedBlock(child))
        elif isinstance(child, SpatialAttention):
            setattr(module, name, GroupedSpatialAttention(child))
        elif isinstance(child, FeatureGuide):
            setattr(module, name, EarlyGuide(child))
        elif isinstance(child, OutputBlock):
            setattr(module, name, MergedOutput(child))
        use_graph_layers(getattr(module, name))
        if hasattr(child, "inplace"):
            child.inplace = False  # type: ignore[assignment]  # the exporter would spend half of its time on removing it


class JoinedDilatedBlock(nn.Module):
    """`DilatedConvBlock` whose branches are weighted by one multiplication, after their concatenation."""

    def __init__(self, block: DilatedConvBlock) -> None:
        super().__init__()
        self.convs = nn.ModuleList([branch[0] for branch in block.branches])  # type: ignore[index]
        self.weigh = JoinedChannelAttention([branch[1] for branch in block.branches])  # type: ignore[index]
        self.fuse, self.shortcut, self.attention = block.fuse, block.shortcut, block.attention

    def forward(self, x: Tensor) -> Tensor:
        fused = self.fuse(self.weigh(torch.cat([conv(x) for conv in self.convs], 1)))
        result: Tensor = self.attention(F.relu(fused + self.shortcut(x)))
        return result


class JoinedChannelAttention(ChannelAttention):
    """Several channel attentions, computed as one with as many groups."""

    def __init__(self, parts: list[ChannelAttention]) -> None:
        nn.Module.__init__(self)  # the weights are those of the parts
        self.squeeze = _joined([part.squeeze for part in parts])
        self.excite = _joined([part.excite for part in parts])


def _joined(convs: list[nn.Conv2d]) -> nn.Conv2d:
    first = convs[0]
    joined = nn.Conv2d(
        first.in_channels * len(convs), first.out_channels * len(convs), 1, groups=len(convs), bias=False
    )
    joined.weight = nn.Parameter(torch.cat([conv.weight for conv in convs]), requires_grad=False)
    return joined


class GroupedSpatialAttention(nn.Module):
    """`SpatialAttention` whose mean is a convolution and whose maximum is taken in two steps."""

    def __init__(self, attention: SpatialAttention) -> None:
        super().__init__()
        self.conv = attention.conv

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        mean = F.conv2d(x, x.new_full((1, channels, 1, 1), 1 / channels))
        groups = _grouped(x, channels // GROUP) if channels % GROUP == 0 else x.unsqueeze(1)
        pooled = torch.cat((mean, groups.amax(2).amax(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.conv(pooled))


def _grouped(x: Tensor, count: int) -> Tensor:
    """Reshape (B, count * GROUP, H, W) to (B, count, GROUP, H, W)."""
    if torch.compiler.is_exporting():
        batch, _, *size = x.shape
        return placeholder(GROUPED, (x,), {"count": count}, shape=(batch, count, GROUP, *size))
    return x.unflatten(1, (count, GROUP))


def write_grouped(tape: Tape, node: Any) -> Any:
    """Write ONNX operators for `_grouped`, see `symbolic.expand`."""
    (x,) = node.inputs
    return Planes(tape, x).view(x, node.attributes["count"].as_int(), GROUP)


class EarlyGuide(nn.Module):
    """`FeatureGuide` whose convolutions come before the upsampling of rows."""

    def __init__(self, guide: FeatureGuide) -> None:
        super().__init__()
        first, *others = guide.convs
        self.first = first
        self.others = nn.ModuleList([_early(conv, 2) for conv in others])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for conv in self.others:
            x = F.relu(conv(x))
        return x


class MergedOutput(nn.Module):
    """`OutputBlock` of the three decoders' maps, each at its own size.

    The layers at full resolution run part by part: the maps of a part are small enough for the processor's cache, and
    short enough for a small product over their rows.
    """

    def __init__(self, output: OutputBlock) -> None:
        super().__init__()
        conv = output.fuse[0]
        assert isinstance(conv, nn.Conv2d)
        self.fuse = MergedConv(conv, output.in_channels, (1, 2, 4))
        grown, self.narrow = output.refine
        self.grown = grown if output.upscale == 1 else _early(grown, output.upscale)
        self.logits = output.logits

    def forward(self, small: Tensor, middle: Tensor, large: Tensor) -> Tensor:
        fused = self.fuse(small, middle, large)
        if not isinstance(self.grown, EarlyConv):
            result: Tensor = self.logits(self.narrow(self.grown(fused)))
            return result
        parts = [F.relu(self.grown.part(fused, index, PARTS)) for index in range(PARTS)]
        return torch.cat([self.logits(self.narrow(part)) for part in parts], 2)


def _early(block: nn.Module, scale: int) -> EarlyConv:
    conv = block[0]  # type: ignore[index]
    assert isinstance(conv, nn.Conv2d)
    return EarlyConv(conv.weight, conv.bias, scale)
