"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019) without squeeze-and-excite, with ReLU6.

TensorFlow's numerics, which its ImageNet weights need: BatchNorm eps 1e-3 and "SAME" padding, which for a stride of 2
and even sizes puts the odd pixel on the right and at the bottom.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.models.encoders.base import Encoder

BN_EPS = 1e-3
BN_MOMENTUM = 0.01

# (repeats, kernel, stride, expansion, channels) of the seven stages; B0's table
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FEATURE_STAGES = (1, 2, 4, 6)  # the last stage at each of the strides 4, 8, 16, 32


class SameConv2d(nn.Conv2d):
    """Conv2d with TensorFlow's SAME padding for even input sizes (stride 2) or any size (stride 1)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        symmetric = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride=stride, padding=symmetric, groups=groups, bias=False)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self.same_padding = None if stride == 1 else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.same_padding is None else F.pad(x, self.same_padding))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class InvertedResidual(nn.Module):
    """1x1 expansion (none for a factor of 1), depthwise convolution, linear 1x1 projection, shortcut where it fits."""

    def __init__(self, in_channels: int, channels: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == channels
        self.expand = (
            nn.Identity()
            if expansion == 1
            else nn.Sequential(SameConv2d(in_channels, hidden, 1), _norm(hidden), nn.ReLU6(inplace=True))
        )
        self.depthwise = nn.Sequential(
            SameConv2d(hidden, hidden, kernel, stride=stride, groups=hidden), _norm(hidden), nn.ReLU6(inplace=True)
        )
        self.project = nn.Sequential(SameConv2d(hidden, channels, 1), _norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class EfficientNetLite(Encoder):
    """The convolutional part up to the last inverted residual; the classifier's head is left out."""

    channels = (24, 40, 112, 320)
    strides = (4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv2d(3, 32, 3, stride=2), _norm(32), nn.ReLU6(inplace=True))
        stages = []
        in_channels = 32
        for repeats, kernel, stride, expansion, channels in STAGES:
            blocks = []
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(in_channels, channels, kernel=kernel, stride=step, expansion=expansion))
                in_channels = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.stem(images)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in FEATURE_STAGES:
                features.append(x)
        x1, x2, x3, x4 = features
        return x1, x2, x3, x4


def efficientnet_lite0() -> EfficientNetLite:
    """EfficientNet-Lite0 without its classifier: 3.0 M parameters, strides 4 to 32."""
    return EfficientNetLite()
