"""Semantic Information Decoupling (paper, section "Semantic Information Decoupling").

The deepest feature map is split into foreground, background and uncertainty. `AuxiliaryHead` predicts a map from each
part; the losses that separate the parts are in `training/losses.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from condseg_sdk.models.layers import ConvBN, convolved, upsample


class Decoupled(NamedTuple):
    """The parts of the deepest feature map, each (B, C, H, W); `uncertainty` is None where it is not requested."""

    foreground: Tensor
    background: Tensor
    uncertainty: Tensor | None


def _branch(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBN(in_channels, hidden), ConvBN(hidden, out_channels), ConvBN(out_channels, out_channels, 1)
    )


class SemanticInformationDecoupling(nn.Module):
    """Three branches on the deepest feature map.

    Args:
        in_channels: Number of channels of the encoder's last feature map.
        hidden: Number of channels of the first convolution of each branch; 512 for ResNet-50 and 256 for PVTv2 in the
            paper's networks.
        out_channels: Number of channels of each part.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.foreground = _branch(in_channels, hidden, out_channels)
        self.background = _branch(in_channels, hidden, out_channels)
        self.uncertainty = _branch(in_channels, hidden, out_channels)

    def forward(self, x: Tensor, uncertainty: bool) -> Decoupled:
        """Split (B, in_channels, H, W) into its parts, with or without the one for uncertainty."""
        return Decoupled(self.foreground(x), self.background(x), self.uncertainty(x) if uncertainty else None)


def _doubled(x: Tensor) -> Tensor:
    return upsample(x, 2)


class AuxiliaryHead(nn.Module):
    """Compute logits from one part: 3x3 convolutions, the resolution doubled between them, and a 1x1 convolution.

    Args:
        in_channels: Number of channels of the part.
        channels: Number of channels of each 3x3 convolution.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvBN(a, b) for a, b in pairwise((in_channels, *channels))])
        self.logits = nn.Conv2d(channels[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits that are 2 ** (len(channels) - 1) times as large as the part (B, in_channels, H, W)."""
        for index, conv in enumerate(self.convs):
            x = conv(x) if index == 0 else convolved(conv, _doubled, x)
        return self.logits(x)


class FeatureGuide(nn.Module):
    """Bring the foreground (or background) part from the deepest level to a finer one.

    Args:
        channels: Number of channels of each level on the way, from the deepest one to the target, such as (C4, C3, C2)
            for level 2.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvBN(a, b) for a, b in pairwise((channels[0], *channels))])

    def forward(self, x: Tensor) -> Tensor:
        """Bring a part (B, channels[0], H, W) to the target level, (B, channels[-1], ...)."""
        for index, conv in enumerate(self.convs):
            x = conv(x) if index == 0 else convolved(conv, _doubled, x)
        return x
