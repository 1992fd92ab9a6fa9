"""Semantic Information Decoupling (paper, section "Semantic Information Decoupling").

Splits the deepest feature map into foreground, background and uncertainty. `AuxiliaryHead` predicts a map from
each part; the losses that drive the parts away from each other live in `training/losses.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from condseg_sdk.models.layers import ConvBN, convolved, upsample


class Decoupled(NamedTuple):
    """The parts of the deepest feature map, each (B, C, H, W); `uncertainty` is None where nobody asks for it."""

    foreground: Tensor
    background: Tensor
    uncertainty: Tensor | None


def _branch(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBN(in_channels, hidden), ConvBN(hidden, out_channels), ConvBN(out_channels, out_channels, 1)
    )


class SemanticInformationDecoupling(nn.Module):
    """Three branches over the deepest feature map.

    Args:
        in_channels: channels of the encoder's last feature map.
        hidden: width of each branch's first convolution (512 for ResNet-50, 256 for PVTv2 in the paper's networks).
        out_channels: channels of every part.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.foreground = _branch(in_channels, hidden, out_channels)
        self.background = _branch(in_channels, hidden, out_channels)
        self.uncertainty = _branch(in_channels, hidden, out_channels)

    def forward(self, x: Tensor, uncertainty: bool) -> Decoupled:
        return Decoupled(self.foreground(x), self.background(x), self.uncertainty(x) if uncertainty else None)


def _doubled(x: Tensor) -> Tensor:
    return upsample(x, 2)


class AuxiliaryHead(nn.Module):
    """Logits from one part: 3x3 convolutions with a doubling of the resolution between them, then 1x1 to one map.

    Args:
        in_channels: channels of the part.
        channels: width of each convolution; the map comes out 2 ** (len(channels) - 1) times larger.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvBN(a, b) for a, b in pairwise((in_channels, *channels))])
        self.logits = nn.Conv2d(channels[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for index, conv in enumerate(self.convs):
            x = conv(x) if index == 0 else convolved(conv, _doubled, x)
        return self.logits(x)


class FeatureGuide(nn.Module):
    """Bring the foreground (or background) part from the deepest level to a finer one.

    Args:
        channels: of the levels passed, from the deepest to the target, e.g. (C4, C3, C2) for level 2.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvBN(a, b) for a, b in pairwise((channels[0], *channels))])

    def forward(self, x: Tensor) -> Tensor:
        for index, conv in enumerate(self.convs):
            x = conv(x) if index == 0 else convolved(conv, _doubled, x)
        return x
