"""Size-Aware Decoder (paper, section "Size-Aware Decoder"): one decoder each for small, middle and large regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.models.layers import ChannelAttention, ConvBN, SpatialAttention, convolved, upsample


def _joined(low: Tensor, high: Tensor) -> Tensor:
    return torch.cat((upsample(low, 2), high), 1)


class SizeDecoder(nn.Module):
    """Merge a coarse map into the next finer one; every step adds the results of all steps before it.

    Args:
        low_channels: Number of channels of the coarse map, which has half the resolution.
        channels: Number of channels of the fine map and of the result.
    """

    def __init__(self, low_channels: int, channels: int) -> None:
        super().__init__()
        self.merge = ConvBN(low_channels + channels, channels, 1)
        self.steps = nn.ModuleList([ConvBN(channels, channels, kernel, relu=False) for kernel in (3, 3, 1)])
        self.channel_attention = ChannelAttention(channels)
        self.spatial_attention = SpatialAttention()

    def merged(self, low: Tensor, high: Tensor) -> Tensor:
        """Merge both maps into one with the size of the fine map."""
        result: Tensor = convolved(self.merge, _joined, low, high)
        return result

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Merge (B, low_channels, H / 2, W / 2) and (B, channels, H, W) into (B, channels, H, W)."""
        x = total = self.merged(low, high)
        for step in self.steps:
            x = F.relu(step(x) + total)
            total = total + x
        result: Tensor = self.spatial_attention(self.channel_attention(x))
        return result


class SizeAwareDecoder(nn.Module):
    """Three decoders of neighboring levels, upsampled to the finest level and concatenated.

    Args:
        channels: Number of channels of the aggregated features, finest level first.
    """

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.small = SizeDecoder(channels[1], channels[0])
        self.middle = SizeDecoder(channels[2], channels[1])
        self.large = SizeDecoder(channels[3], channels[2])

    def forward(self, f1: Tensor, f2: Tensor, f3: Tensor, f4: Tensor) -> Tensor:
        """Decode the aggregated features, finest first, into (B, channels[0] + channels[1] + channels[2], H1, W1)."""
        parts = (self.small(f2, f1), upsample(self.middle(f3, f2), 2), upsample(self.large(f4, f3), 4))
        return torch.cat(parts, 1)


class OutputBlock(nn.Module):
    """Compute logits from the concatenated decoders.

    Args:
        in_channels: Number of channels of each concatenated map.
        fused: Number of channels after the first convolution.
        hidden: Number of channels of the 3x3 and the 1x1 convolution before the logits; 128 and 64 in the paper.
        upscale: Factor by which the maps are upsampled before these convolutions; 1 keeps them cheap.
    """

    def __init__(self, in_channels: Sequence[int], fused: int, hidden: tuple[int, int], *, upscale: int) -> None:
        super().__init__()
        self.in_channels, self.upscale = tuple(in_channels), upscale
        self.fuse = ConvBN(sum(in_channels), fused)
        self.refine = nn.Sequential(ConvBN(fused, hidden[0]), ConvBN(hidden[0], hidden[1], 1))
        self.logits = nn.Conv2d(hidden[1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, 1, H1 * upscale, W1 * upscale) from the concatenated maps at (H1, W1)."""
        first, second = self.refine
        grown = convolved(first, lambda fused: upsample(fused, self.upscale), self.fuse(x))
        result: Tensor = self.logits(second(grown))
        return result
