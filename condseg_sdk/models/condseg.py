"""ConDSeg, the whole network, and its three named variants (Lei et al., AAAI 2025).

One class serves the published networks and `condseg-lite`; `NETWORKS` lists their arguments.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.checkpoints.mixin import PretrainedNetwork
from condseg_sdk.errors import OptionError
from condseg_sdk.models.cdfa import ContrastDrivenFeatureAggregation
from condseg_sdk.models.decoder import OutputBlock, SizeAwareDecoder
from condseg_sdk.models.encoders import ENCODERS, build_encoder
from condseg_sdk.models.layers import DilatedConvBlock, upsample
from condseg_sdk.models.sid import AuxiliaryHead, FeatureGuide, SemanticInformationDecoupling

LEVELS = 4
# Far beyond any of `NETWORKS`: larger values come from a damaged file or a typo, and would exhaust the memory.
MAX_CHANNELS, MAX_HEADS, MAX_DILATION, MAX_BRANCHES, MAX_AUX_CONVOLUTIONS = 1024, 32, 128, 8, 8
MAX_WEIGHTS = 200_000_000  # four times as many as the published networks have

NETWORKS: dict[str, dict[str, Any]] = {
    "condseg-r50": {"encoder": "resnet50"},
    "condseg-pvt": {"encoder": "pvt_v2_b2", "sid_channels": 256, "aux_channels": (128, 128, 128, 64, 64, 32)},
    # Not from the paper: narrow where the map is large, 32 channels per head as in the paper, dilations that fit the
    # maps at strides 4 to 32, logits at stride 4.
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


def network_arguments(encoder: str) -> dict[str, Any]:
    """Choose the arguments of `ConDSeg` for an encoder.

    Args:
        encoder: A key of `ENCODERS`.

    Returns:
        The arguments of the first named network with this encoder. Without one, the arguments of condseg-lite (for a
        light encoder) or condseg-r50 (for any other), with this encoder.

    Example:
        >>> network_arguments("efficientnet_lite2")["channels"]
        (32, 64, 96, 96)
    """
    named = [arguments for arguments in NETWORKS.values() if arguments["encoder"] == encoder]
    relative = NETWORKS["condseg-lite" if ENCODERS[encoder].is_light else "condseg-r50"]
    return named[0] if named else {**relative, "encoder": encoder}


class ConDSegOutput(NamedTuple):
    """Logits of a batch, each (B, 1, H, W) in the dtype of the images; the last three are None without `aux=True`.

    Attributes:
        mask: Logits of the segmentation.
        foreground: Logits of the foreground branch.
        background: Logits of the background branch.
        uncertainty: Logits of the uncertainty branch.
    """

    mask: Tensor
    foreground: Tensor | None = None
    background: Tensor | None = None
    uncertainty: Tensor | None = None


def _integers(name: str, values: object, wanted: str, *, count: range, greatest: int) -> tuple[int, ...]:
    """Check a list of integers from 1 to `greatest`, which may come from a damaged file."""
    if (
        not isinstance(values, Sequence)
        or len(values) not in count
        or not all(type(value) is int and 1 <= value <= greatest for value in values)
    ):
        raise OptionError(f"{name} must be {wanted}, each from 1 to {greatest}, not {reprlib.repr(values)}")
    return tuple(values)


def _per_level(name: str, numbers: object, *, greatest: int) -> tuple[int, int, int, int]:
    values = (numbers,) * LEVELS if type(numbers) is int else numbers
    wanted = f"one positive integer or one for each of {LEVELS} levels"
    levels = _integers(name, values, wanted, count=range(LEVELS, LEVELS + 1), greatest=greatest)
    return levels[0], levels[1], levels[2], levels[3]


def _dilations_per_level(dilations: object) -> list[tuple[int, ...]]:
    one_list = not isinstance(dilations, Sequence) or not any(isinstance(level, Sequence) for level in dilations)
    levels = [dilations] * LEVELS if one_list else list(dilations)  # type: ignore[call-overload]
    wanted = f"one list of 1 to {MAX_BRANCHES} integers or one for each of {LEVELS} levels"
    if len(levels) != LEVELS:
        raise OptionError(f"dilations must be {wanted}, not {reprlib.repr(dilations)}")
    counts = range(1, MAX_BRANCHES + 1)
    return [_integers("dilations", level, wanted, count=counts, greatest=MAX_DILATION) for level in levels]


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column of images (B, C, H, W) until H and W are multiples of `stride`."""
    height, width = images.shape[-2:]
    bottom, right = -height % stride, -width % stride
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


class ConDSeg(PretrainedNetwork):
    """The contrast-driven segmentation network for one kind of region (paper, section "Network Architecture").

    Args:
        encoder: Name of the encoder, a key of `ENCODERS`.
        channels: Number of channels of the decoder, one number or one per level, finest first; multiples of `heads`.
            The paper uses 128.
        heads: Number of attention heads of the aggregation, one number or one per level. The paper uses 4.
        dilations: Dilations of the 3x3 branches, one list or one per level.
        sid_channels: Number of channels inside each decoupling branch.
        aux_channels: Number of channels of each convolution of the auxiliary heads; each but the first doubles the
            resolution.
        output_channels: Number of channels of the last two hidden convolutions.
        full_resolution: Whether to compute the last convolutions at the resolution of the image, as in the paper.
            Otherwise they run at the encoder's first stride, and the logits are upsampled.

    Raises:
        OptionError: A value is out of range, or arguments do not fit together.

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
        widths = _per_level("channels", channels, greatest=MAX_CHANNELS)
        level_heads = _per_level("heads", heads, greatest=MAX_HEADS)
        level_dilations = _dilations_per_level(dilations)
        (hidden_sid,) = _integers(
            "sid_channels", [sid_channels], "one integer", count=range(1, 2), greatest=MAX_CHANNELS
        )
        counts = range(1, MAX_AUX_CONVOLUTIONS + 1)
        hidden_aux = _integers(
            "aux_channels", aux_channels, f"1 to {MAX_AUX_CONVOLUTIONS} numbers", count=counts, greatest=MAX_CHANNELS
        )
        hidden = _integers("output_channels", output_channels, "two numbers", count=range(2, 3), greatest=MAX_CHANNELS)
        if type(full_resolution) is not bool:
            raise OptionError(f"full_resolution={full_resolution!r} must be True or False")
        if any(width % count for width, count in zip(widths, level_heads, strict=True)):
            raise OptionError(f"channels {widths} must be multiples of heads {level_heads}")
        self.encoder = build_encoder(encoder)
        self.full_resolution = full_resolution
        self.dilated = nn.ModuleList(
            [
                DilatedConvBlock(inputs, width, dilations=level)
                for inputs, width, level in zip(self.encoder.channels, widths, level_dilations, strict=True)
            ]
        )
        self.sid = SemanticInformationDecoupling(self.encoder.channels[-1], hidden_sid, widths[-1])
        self.aux_foreground, self.aux_background, self.aux_uncertainty = (
            AuxiliaryHead(widths[-1], hidden_aux) for _ in range(3)
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
            widths[:3], widths[0], (hidden[0], hidden[1]), upscale=self.encoder.strides[0] if full_resolution else 1
        )
        count = sum(weight.numel() for weight in self.parameters())
        if count > MAX_WEIGHTS:
            raise OptionError(f"these arguments make {count:,} weights, more than {MAX_WEIGHTS:,}: lower the channels")

    def forward(self, images: Tensor, aux: bool = False) -> ConDSegOutput:
        """Segment a batch of images.

        Args:
            images: Images (B, 3, H, W), float, normalized as the checkpoint's `Preprocessing` says. H and W are free:
                the last row and column are repeated up to the network's stride, and the logits are cropped.
            aux: Whether to also compute the maps of the auxiliary heads.

        Returns:
            The logits, at the size of the images.
        """
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
