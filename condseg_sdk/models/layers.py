"""Small building blocks that all parts of the network share (paper, section "Network Architecture")."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def upsample(x: Tensor, scale: int) -> Tensor:
    """Upsample bilinearly by an integer factor with aligned corners, the only way the network does it.

    Args:
        x: Map (B, C, H, W).
        scale: Factor; 1 returns `x` itself.

    Returns:
        Map (B, C, H * scale, W * scale).

    Example:
        >>> upsample(torch.zeros(1, 8, 4, 6), 2).shape
        torch.Size([1, 8, 8, 12])
    """
    if scale == 1:
        return x
    return F.interpolate(x, scale_factor=float(scale), mode="bilinear", align_corners=True)


def checkpointed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Compute `function(*inputs)` without keeping intermediate results: the backward pass computes them again.

    This is for cheap steps that turn small maps into large ones. BatchNorm must not be among them, since it would count
    a batch twice. A last convolution is not computed again, because its backward pass needs only its input.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        result: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return result
    return function(*inputs)


class ConvBN(nn.Sequential):
    """Convolution without bias, BatchNorm and ReLU, with "same" padding.

    Args:
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output.
        kernel: Kernel size, an odd number.
        dilation: Dilation of the kernel.
        relu: Whether there is a ReLU.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, dilation: int = 1, relu: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels, out_channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False
            ),
            nn.BatchNorm2d(out_channels),
        ]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


def convolved(conv: nn.Module, prepare: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Compute `conv(prepare(*inputs))`; in training the result of `prepare` is not kept for the backward pass."""
    if not (conv.training and isinstance(conv, ConvBN)):
        result: Tensor = conv(prepare(*inputs))
        return result
    first, *rest = conv
    x = checkpointed(lambda *values: first(prepare(*values)), *inputs)
    for layer in rest:
        x = layer(x)
    return x


class ChannelAttention(nn.Module):
    """Channel attention: weights from a shared MLP without bias on the mean and the maximum of each channel.

    Args:
        channels: Number of channels of the map.
        reduction: Factor by which the hidden layer is smaller.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.excite = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of (B, C, H, W)."""
        pooled = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        average, maximum = (self.excite(F.relu(self.squeeze(p))) for p in pooled)
        return x * torch.sigmoid(average + maximum)


class SpatialAttention(nn.Module):
    """Spatial attention: weights from a 7x7 convolution on the mean and the maximum of each pixel's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weight the pixels of (B, C, H, W)."""
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.conv(pooled))


def _part(branch: nn.Module, index: int) -> nn.Module:
    assert isinstance(branch, nn.Sequential)
    return branch[index]


class DilatedConvBlock(nn.Module):
    """Bring one level of the encoder to the decoder's channels, with four receptive fields.

    Args:
        in_channels: Number of channels of the encoder's feature map.
        out_channels: Number of channels of the result.
        dilations: Dilation of each 3x3 branch; 6, 12 and 18 in the paper.
    """

    def __init__(self, in_channels: int, out_channels: int, *, dilations: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(ConvBN(in_channels, out_channels, kernel, dilation=d), ChannelAttention(out_channels))
                for kernel, d in [(1, 1), *((3, d) for d in dilations)]
            ]
        )
        self.fuse = ConvBN(out_channels * len(self.branches), out_channels, 3, relu=False)
        self.shortcut = ConvBN(in_channels, out_channels, 1, relu=False)
        self.attention = SpatialAttention()

    def _attended(self, *parts: Tensor) -> Tensor:
        return torch.cat([_part(branch, 1)(part) for branch, part in zip(self.branches, parts, strict=True)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, in_channels, H, W) into (B, out_channels, H, W)."""
        parts = [_part(branch, 0)(x) for branch in self.branches]
        fused = convolved(self.fuse, self._attended, *parts)
        return self.attention(F.relu(fused + self.shortcut(x)))
