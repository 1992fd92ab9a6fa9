"""Small building blocks shared by every part of the network (paper, section "Network Architecture").

Nothing here knows about ConDSeg as a whole; the parts that do are `sid.py`, `cdfa.py` and `decoder.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def upsample(x: Tensor, scale: int) -> Tensor:
    """Bilinear upsampling by an integer factor with aligned corners, the only kind the network uses.

    Args:
        x: (B, C, H, W).
        scale: factor, 1 returns `x` itself.

    Returns:
        (B, C, H * scale, W * scale).
    """
    if scale == 1:
        return x
    return F.interpolate(x, scale_factor=float(scale), mode="bilinear", align_corners=True)


def checkpointed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """function(*inputs), keeping of its intermediate results none: the backward pass computes them again.

    For steps that are cheap and make large maps of small ones. There must be no BatchNorm among them, which would count
    a batch twice. A last convolution is not computed again, since its backward needs its input alone.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        result: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return result
    return function(*inputs)


class ConvBN(nn.Sequential):
    """Conv2d without bias, BatchNorm and, unless `relu=False`, ReLU; "same" padding for odd kernels."""

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
    """conv(prepare(*inputs)); in training what `prepare` makes for a `ConvBN` is not kept for the backward pass."""
    if not (conv.training and isinstance(conv, ConvBN)):
        result: Tensor = conv(prepare(*inputs))
        return result
    first, *rest = conv
    x = checkpointed(lambda *values: first(prepare(*values)), *inputs)
    for layer in rest:
        x = layer(x)
    return x


class ChannelAttention(nn.Module):
    """Weigh channels by a shared bias-free MLP over their average and their maximum."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.excite = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        average, maximum = (self.excite(F.relu(self.squeeze(p))) for p in pooled)
        return x * torch.sigmoid(average + maximum)


class SpatialAttention(nn.Module):
    """Weigh pixels by a bias-free 7x7 convolution over the mean and the maximum of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.conv(pooled))


def _part(branch: nn.Module, index: int) -> nn.Module:
    assert isinstance(branch, nn.Sequential)
    return branch[index]


class DilatedConvBlock(nn.Module):
    """One encoder level to the decoder's channels, seen through four receptive fields.

    Args:
        in_channels: channels of the encoder's feature map.
        out_channels: channels of the result.
        dilations: of the three 3x3 branches; 6, 12, 18 in the paper.
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
        parts = [_part(branch, 0)(x) for branch in self.branches]
        fused = convolved(self.fuse, self._attended, *parts)
        return self.attention(F.relu(fused + self.shortcut(x)))
