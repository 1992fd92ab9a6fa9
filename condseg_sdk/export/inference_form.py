"""The inference form: a trained `ConDSeg` rewritten into an equivalent, faster module.

Each change keeps the result up to rounding (docs/benchmarks.md lists the largest differences in probability):

- parts that no requested map needs are left out: auxiliary heads, and the uncertainty branch unless requested;
- BatchNorm is folded into the convolution before it;
- a 1x1 convolution over a concatenation with an upsampled map runs before the upsampling, at a quarter of the pixels;
- a convolution whose dilation exceeds the map reads only padding outside its center and becomes 1x1 (known sizes only);
- in graphs the aggregation is in its plane form (`plane_aggregation.py`), 3x3 convolutions of upsampled maps work on
  the coarse rows (`early_conv.py`), the four branches of a dilated block are weighted after their concatenation instead
  of before it, and the mean of the channels is a convolution (`graph_layers.py`).

The given network is not changed.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from condseg_sdk.export.graph_layers import use_graph_layers
from condseg_sdk.models import ConDSeg
from condseg_sdk.models.condseg import LEVELS, pad_to_stride
from condseg_sdk.models.decoder import SizeDecoder
from condseg_sdk.models.layers import DilatedConvBlock, upsample

__all__ = ["InferenceForm", "inference_form"]


def inference_form(
    network: ConDSeg, *, uncertainty: bool = False, size: tuple[int, int] | None = None, graph: bool = False
) -> InferenceForm:
    """Build an equivalent, faster module in eval mode, without gradients, on the network's device.

    Args:
        network: A trained network; not changed.
        uncertainty: Whether to also compute the map of the uncertainty branch.
        size: (H, W) of all images, if known; some shortcuts hold only at a known size.
        graph: Whether to put layers into the form that ONNX graphs run fastest. Eager PyTorch is faster without it,
            since it can add in place.

    Returns:
        The module; see `InferenceForm.forward`.

    Example:
        >>> network = ConDSeg(encoder="efficientnet_lite0", channels=8, heads=2, sid_channels=8, aux_channels=(8,))
        >>> (mask,) = inference_form(network)(torch.zeros(1, 3, 64, 96))
        >>> mask.shape
        torch.Size([1, 1, 64, 96])
    """
    return InferenceForm(network, uncertainty=uncertainty, size=size, graph=graph)


class InferenceForm(nn.Module):
    """A network in its inference form, which `inference_form` builds."""

    def __init__(self, network: ConDSeg, *, uncertainty: bool, size: tuple[int, int] | None, graph: bool) -> None:
        super().__init__()
        source = deepcopy(network).eval().requires_grad_(False)
        fold_batchnorm(source)
        self.size, self.graph = size, graph
        self.stride = source.encoder.strides[-1]
        self.encoder = source.encoder
        self.dilated = source.dilated
        self.foreground, self.background = source.sid.foreground, source.sid.background
        self.guide_foreground, self.guide_background = source.guide_foreground, source.guide_background
        self.cdfa = source.cdfa
        self.decoder = source.decoder
        for name in ("small", "middle", "large"):
            setattr(self.decoder, name, EarlySizeDecoder(getattr(self.decoder, name)))
        self.output = source.output
        self.uncertainty: nn.Module | None = None
        if uncertainty:
            self.uncertainty = nn.Sequential(source.sid.uncertainty, source.aux_uncertainty)
        if size is not None:
            for block, stride in zip(self.dilated, source.encoder.strides, strict=True):
                padded = [-(-side // self.stride) * self.stride for side in size]
                assert isinstance(block, DilatedConvBlock)
                drop_padding_taps(block, (padded[0] // stride, padded[1] // stride))
        if graph:
            use_graph_layers(self)

    def forward(self, images: Tensor, uncertainty: bool | None = None) -> tuple[Tensor, ...]:
        """Segment a batch of images.

        Args:
            images: Images (B, 3, H, W), normalized; H and W are `size` if that was given, and any otherwise.
            uncertainty: False leaves the map of the uncertainty branch out of a form that has it.

        Returns:
            Logits (B, 1, H, W) of the mask and, if the form has it, of the uncertainty branch.
        """
        height, width = images.shape[-2:]
        known = self.size is not None and all(side % self.stride == 0 for side in self.size)
        padded = images if known else self._pad(images)
        features = self.encoder(padded)
        levels = [block(x) for block, x in zip(self.dilated, features, strict=True)]
        foreground, background = self.foreground(features[-1]), self.background(features[-1])
        aggregated: list[Tensor] = []
        for level in reversed(range(LEVELS)):
            x = (levels[level], *aggregated[-1:])
            guides = self.guide_foreground[level](foreground), self.guide_background[level](background)
            aggregated.append(self.cdfa[level](x if self.graph else _joined(*x), *guides))
        logits = [self._output(*reversed(aggregated))]
        if self.uncertainty is not None and uncertainty is not False:
            logits.append(self.uncertainty(features[-1]))
        maps = [self._to_size(x, padded) for x in logits]
        return tuple(maps if known else [x[..., :height, :width] for x in maps])

    def _output(self, f1: Tensor, f2: Tensor, f3: Tensor, f4: Tensor) -> Tensor:
        if not self.graph:
            result: Tensor = self.output(self.decoder(f1, f2, f3, f4))
            return result
        parts = self.decoder.small(f2, f1), self.decoder.middle(f3, f2), self.decoder.large(f4, f3)
        merged: Tensor = self.output(*parts)
        return merged

    def _to_size(self, logits: Tensor, padded: Tensor) -> Tensor:
        if not self.graph:
            return ConDSeg._to_size(logits, padded.shape[-2:])
        # By a factor, so that the exporter needs no size.
        factor = padded.shape[-1] // logits.shape[-1]
        if factor == 1:
            return logits
        return F.interpolate(logits, scale_factor=float(factor), mode="bilinear", align_corners=False)

    def _pad(self, images: Tensor) -> Tensor:
        if not self.graph:
            return pad_to_stride(images, self.stride)
        # Without asking whether it is needed: the exporter would keep the result for this example.
        height, width = images.shape[-2:]
        return F.pad(images, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")


def _joined(level: Tensor, *coarser: Tensor) -> Tensor:
    return torch.cat((level, *(upsample(x, 2) for x in coarser)), 1) if coarser else level


class EarlySizeDecoder(SizeDecoder):
    """`SizeDecoder` whose first convolution, a 1x1 one, works on the coarse map before it is upsampled.

    Bilinear upsampling commutes with the convolution, since its weights sum to one; ReLU does not commute with it and
    is applied afterwards.
    """

    def __init__(self, decoder: SizeDecoder) -> None:
        nn.Module.__init__(self)  # the parts come from the given decoder
        merge = decoder.merge[0]
        assert isinstance(merge, nn.Conv2d)
        high_channels = merge.out_channels
        low_weight, high_weight = merge.weight.split([merge.in_channels - high_channels, high_channels], 1)
        self.low = _pointwise(low_weight, None)
        self.high = _pointwise(high_weight, merge.bias)
        self.steps = decoder.steps
        self.channel_attention = decoder.channel_attention
        self.spatial_attention = decoder.spatial_attention

    def merged(self, low: Tensor, high: Tensor) -> Tensor:
        """Merge both maps into one with the size of the fine map."""
        return F.relu(self.high(high) + upsample(self.low(low), 2))


def _pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
    conv.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format), requires_grad=False)
    conv.bias = bias
    return conv


def fold_batchnorm(module: nn.Module) -> None:
    """Fold every BatchNorm into the convolution registered just before it, in place; the module is in eval mode."""
    for parent in list(module.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, nn.Identity())
            before = (name, child)


def drop_padding_taps(block: DilatedConvBlock, size: tuple[int, int]) -> None:
    """Replace convolutions that read only padding outside their center on maps of `size` (H, W), in place."""
    for branch in block.branches:
        conv = branch[0][0]  # type: ignore[index]
        assert isinstance(conv, nn.Conv2d)
        if conv.kernel_size == (3, 3) and min(conv.dilation) >= max(size):
            branch[0][0] = _pointwise(conv.weight[:, :, 1:2, 1:2], conv.bias)  # type: ignore[index]
