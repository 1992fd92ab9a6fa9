"""ConDSeg, the whole network, and the three sizes of it that we name (Lei et al., AAAI 2025).

One class serves the published networks and ours; what differs is in the arguments, and `NETWORKS` lists those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.errors import OptionError
from condseg_sdk.models.cdfa import ContrastDrivenFeatureAggregation
from condseg_sdk.models.decoder import OutputBlock, SizeAwareDecoder
from condseg_sdk.models.encoders import build_encoder
from condseg_sdk.models.layers import DilatedConvBlock, upsample
from condseg_sdk.models.pretrained import PretrainedNetwork
from condseg_sdk.models.sid import AuxiliaryHead, FeatureGuide, SemanticInformationDecoupling

LEVELS = 4

NETWORKS: dict[str, dict[str, Any]] = {
    "condseg-r50": {"encoder": "resnet50"},
    "condseg-pvt": {
        "encoder": "pvt_v2_b2",
        "sid_channels": 256,
        "aux_channels": (128, 128, 128, 64, 64, 32),
    },
    # Ours: narrow where the map is large, 32 channels a head as in the paper, dilations that fit the maps of its
    # strides 4 to 32, logits at stride 4.
    "condseg-lite": {
        "encoder": "efficientnet_lite0",
        "channels": (32, 64, 96, 96),
        "heads": (1, 2, 3, 3),
        "dilations": ((6, 12, 18), (4, 8, 12), (2, 4, 6), (1, 2, 3)),
        "sid_channels": 112,
        "aux_channels": (64, 48, 32),
        "output_channels": (32, 32),
        "full_resolution": False,
    },
}


class ConDSegOutput(NamedTuple):
    """Logits, each (B, 1, H, W) in the images' dtype; the last three are None unless asked for with `aux=True`."""

    mask: Tensor
    foreground: Tensor | None = None
    background: Tensor | None = None
    uncertainty: Tensor | None = None


def _per_level(name: str, numbers: int | Sequence[int]) -> tuple[int, int, int, int]:
    values = (numbers,) * LEVELS if isinstance(numbers, int) else tuple(numbers)
    if len(values) != LEVELS or min(values) < 1:
        raise OptionError(f"{name} must be one positive number or one for each of {LEVELS} levels, not {numbers!r}")
    return values[0], values[1], values[2], values[3]


def _dilations_per_level(dilations: Sequence[int] | Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    if all(isinstance(d, int) for d in dilations):
        return [tuple(dilations)] * LEVELS  # type: ignore[arg-type]
    if len(dilations) != LEVELS:
        raise OptionError(f"dilations must be one list or one for each of {LEVELS} levels, not {dilations!r}")
    return [tuple(d) for d in dilations]  # type: ignore[arg-type]


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until H and W are multiples of `stride`."""
    height, width = images.shape[-2:]
    bottom, right = -height % stride, -width % stride
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


class ConDSeg(PretrainedNetwork):
    """Contrast-driven segmentation network for one kind of region.

    Args:
        encoder: "resnet50", "pvt_v2_b2" or "efficientnet_lite0".
        channels: of the decoder, one number or one per level, finest first (paper: 128). Multiples of `heads`.
        heads: attention heads of the aggregation, one number or one per level (paper: 4).
        dilations: of the dilated convolutions, one list or one per level.
        sid_channels: width inside each decoupling branch.
        aux_channels: widths of the convolutions of each auxiliary head; each but the first doubles the resolution.
        output_channels: widths of the last two hidden convolutions.
        full_resolution: compute the last convolutions at the image's resolution, as the paper does. Otherwise they run
            at the encoder's first stride and the logits are upsampled.

    Shape:
        images (B, 3, H, W), float, normalised as the checkpoint's `Preprocessing` says, any H and W: the network
        repeats the last row and column up to its stride and crops the answer back.

    Raises:
        OptionError: arguments that do not fit together.

    Example:
        >>> network = ConDSeg(**NETWORKS["condseg-lite"]).eval()
        >>> network(torch.zeros(1, 3, 64, 96)).mask.shape
        torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self,
        *,
        encoder: str = "resnet50",
        channels: int | Sequence[int] = 128,
        heads: int | Sequence[int] = 4,
        dilations: Sequence[int] | Sequence[Sequence[int]] = (6, 12, 18),
        sid_channels: int = 512,
        aux_channels: Sequence[int] = (256, 256, 128, 64, 64),
        output_channels: Sequence[int] = (128, 64),
        full_resolution: bool = True,
    ) -> None:
        super().__init__()
        widths, level_heads = _per_level("channels", channels), _per_level("heads", heads)
        if any(width % count for width, count in zip(widths, level_heads, strict=True)):
            raise OptionError(f"channels {widths} must be multiples of heads {level_heads}")
        hidden = tuple(output_channels)
        if len(hidden) != 2:
            raise OptionError(f"output_channels must be two numbers, not {output_channels!r}")
        self.encoder = build_encoder(encoder)
        self.full_resolution = full_resolution
        self.dilated = nn.ModuleList(
            [
                DilatedConvBlock(inputs, width, dilations=level)
                for inputs, width, level in zip(
                    self.encoder.channels, widths, _dilations_per_level(dilations), strict=True
                )
            ]
        )
        self.sid = SemanticInformationDecoupling(self.encoder.channels[-1], sid_channels, widths[-1])
        self.aux_foreground, self.aux_background, self.aux_uncertainty = (
            AuxiliaryHead(widths[-1], aux_channels) for _ in range(3)
        )
        from_deepest = widths[::-1]
        self.guide_foreground, self.guide_background = (
            nn.ModuleList([FeatureGuide(from_deepest[: LEVELS - level]) for level in range(LEVELS)]) for _ in range(2)
        )
        self.cdfa = nn.ModuleList(
            [
                ContrastDrivenFeatureAggregation(width + coarser, width, heads=count)
                for width, coarser, count in zip(widths, (*widths[1:], 0), level_heads, strict=True)
            ]
        )
        self.decoder = SizeAwareDecoder(widths)
        self.output = OutputBlock(
            widths[:3],
            widths[0],
            (hidden[0], hidden[1]),
            upscale=self.encoder.strides[0] if full_resolution else 1,
        )

    def forward(self, images: Tensor, aux: bool = False) -> ConDSegOutput:
        height, width = images.shape[-2:]
        padded = pad_to_stride(images, self.encoder.strides[-1])
        features = self.encoder(padded)
        levels = [block(x) for block, x in zip(self.dilated, features, strict=True)]
        parts = self.sid(features[-1], uncertainty=aux)
        aggregated: list[Tensor] = []
        for level in reversed(range(LEVELS)):
            x = levels[level]
            if aggregated:
                x = torch.cat((x, upsample(aggregated[-1], 2)), 1)
            foreground = self.guide_foreground[level](parts.foreground)
            background = self.guide_background[level](parts.background)
            aggregated.append(self.cdfa[level](x, foreground, background))
        logits = [self.output(self.decoder(*reversed(aggregated)))]
        if aux:
            heads = (self.aux_foreground, self.aux_background, self.aux_uncertainty)
            logits += [head(part) for head, part in zip(heads, parts, strict=True)]
        size = padded.shape[-2:]
        return ConDSegOutput(*(self._to_size(x, size)[..., :height, :width] for x in logits))

    @staticmethod
    def _to_size(logits: Tensor, size: torch.Size) -> Tensor:
        if logits.shape[-2:] == size:
            return logits
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
