"""ResNet-50 (He et al. 2016; stride in the 3x3 convolution): stem and layers 1 to 3, module names as in torchvision."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.checkpoints.manifest_entry import HubFile, ManifestEntry
from condseg_sdk.models.encoders.base import IMAGENET_PIXELS, Encoder, EncoderSpec, register_encoder

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut around them; the result has 4 * `width` channels."""

    def __init__(self, in_channels: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * EXPANSION)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != width * EXPANSION:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, width * EXPANSION, 1, stride=stride, bias=False),
                nn.BatchNorm2d(width * EXPANSION),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, in_channels, H, W) into (B, 4 * width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


def _layer(in_channels: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride=stride)
    return nn.Sequential(first, *(Bottleneck(width * EXPANSION, width) for _ in range(blocks - 1)))


class ResNet(Encoder):
    """Feature maps after the stem (before its pooling) and after layers 1, 2 and 3, without layer 4.

    Args:
        blocks: Number of bottlenecks in layers 1 to 3; (3, 4, 6) is ResNet-50.
    """

    def __init__(self, blocks: tuple[int, int, int] = (3, 4, 6)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer(64, 64, blocks[0], stride=1)
        self.layer2 = _layer(256, 128, blocks[1], stride=2)
        self.layer3 = _layer(512, 256, blocks[2], stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the feature maps at the strides 2, 4, 8 and 16."""
        x1 = F.relu(self.bn1(self.conv1(images)))
        x2 = self.layer1(self.maxpool(x1))
        x3 = self.layer2(x2)
        return x1, x2, x3, self.layer3(x3)


# Without layer 4: 8.5 M parameters.
register_encoder(
    EncoderSpec(
        name="resnet50",
        build=ResNet,
        channels=(64, 256, 512, 1024),
        strides=(2, 4, 8, 16),
        imagenet=(
            ManifestEntry(
                name="imagenet:resnet50",
                kind="encoder",
                network="resnet50",
                license="bsd-3-clause",
                attribution="ResNet-50 by the torchvision authors, as timm publishes it",
                data="ImageNet-1k",
                preprocessing=IMAGENET_PIXELS,
                hub=HubFile("timm/resnet50.tv_in1k", "model.safetensors"),
            ),
        ),
        published_names={part: part for part in ("conv1", "bn1", "layer1", "layer2", "layer3")},
        left_out=("layer4.", "fc."),
    )
)
