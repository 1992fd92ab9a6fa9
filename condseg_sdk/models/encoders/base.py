"""The description of an encoder, and the registry of encoders."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from condseg_sdk.checkpoints.manifest_entry import ManifestEntry
from condseg_sdk.errors import OptionError
from condseg_sdk.preprocessing import Preprocessing

__all__ = [
    "ENCODERS",
    "IMAGENET_PIXELS",
    "Encoder",
    "EncoderSpec",
    "LearningRates",
    "build_encoder",
    "register_encoder",
]

IMAGENET_PIXELS = Preprocessing((224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The preprocessing of torchvision's and timm's ImageNet training."""


class Encoder(nn.Module):
    """Base class of all encoders: `forward` maps images (B, 3, H, W) to four feature maps, finest first.

    `build_encoder` sets the attributes from the encoder's `EncoderSpec`.

    Attributes:
        name: Name of the encoder in `ENCODERS`.
        channels: Number of channels of each feature map.
        strides: Stride of each feature map; each is twice the one before. H and W must be multiples of the last.
    """

    name: str
    channels: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the feature maps of images (B, 3, H, W)."""
        raise NotImplementedError


class LearningRates(NamedTuple):
    """Peak learning rates that fine-tuning uses by default.

    Attributes:
        decoder: Learning rate of everything but the encoder.
        encoder: Learning rate of the encoder.
        source: Where the two come from, for the training plan.
    """

    decoder: float
    encoder: float
    source: str


PAPER_RATES = LearningRates(1e-4, 1e-5, "the paper's")


@dataclass(frozen=True)
class EncoderSpec:
    """Everything the package knows about one encoder.

    Attributes:
        name: Name of the encoder, the value of `ConDSeg(encoder=...)`.
        build: Makes the encoder with random weights.
        channels: Number of channels of the four feature maps, finest first.
        strides: Stride of the four feature maps.
        imagenet: Published ImageNet weights, listed by `list_models("encoder")`. The first entry is the default.
        published_names: Prefixes of the tensors' names in these files, mapped to prefixes of the encoder's names.
        left_out: Prefixes of published tensors that the encoder does not have, such as the classifier.
        learning_rates: Default learning rates of fine-tuning.
        is_light: Whether the encoder is small enough for the batch sizes of a light network.
    """

    name: str
    build: Callable[[], Encoder]
    channels: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    imagenet: tuple[ManifestEntry, ...] = ()
    published_names: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    learning_rates: LearningRates = PAPER_RATES
    is_light: bool = False


ENCODERS: dict[str, EncoderSpec] = {}
"""All encoders by name."""


def register_encoder(spec: EncoderSpec) -> None:
    """Add an encoder to `ENCODERS`."""
    ENCODERS[spec.name] = spec


def build_encoder(name: str) -> Encoder:
    """Build an encoder with random weights.

    Raises:
        OptionError: The name is unknown.

    Example:
        >>> build_encoder("resnet50").channels
        (64, 256, 512, 1024)
    """
    if not isinstance(name, str) or name not in ENCODERS:
        raise OptionError(f"unknown encoder {reprlib.repr(name)}: choose one of {', '.join(sorted(ENCODERS))}")
    spec = ENCODERS[name]
    encoder = spec.build()
    encoder.name, encoder.channels, encoder.strides = spec.name, spec.channels, spec.strides
    return encoder
