"""The network as the paper writes it: windows unfolded, multiplied and folded back, auxiliary heads on.

The baseline of every speed figure here. Same weights and the same answer as `ConDSeg`, none of its shortcuts.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from unittest.mock import patch

from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.models import ConDSeg
from condseg_sdk.models.cdfa import TAPS, WINDOW, ContrastDrivenFeatureAggregation


class UnfoldedAggregation(ContrastDrivenFeatureAggregation):
    """Paper, section "Contrast-Driven Feature Aggregation", step by step."""

    def _attend(self, guide: Tensor, scores: nn.Conv2d, values: Tensor) -> Tensor:
        batch, channels, height, width = values.shape
        pixels = height * width
        windows = F.unfold(values, WINDOW, padding=1).view(batch, self.heads, channels // self.heads, TAPS, pixels)
        windows = windows.permute(0, 1, 4, 3, 2)  # (B, heads, pixels, 9, head_dim)
        logits = scores(guide).flatten(2).view(batch, self.heads, TAPS, TAPS, pixels) * self.scale
        attention = logits.permute(0, 1, 4, 2, 3).softmax(-1)
        mixed = (attention @ windows).permute(0, 1, 4, 3, 2).reshape(batch, channels * TAPS, pixels)
        projected: Tensor = self.projection(F.fold(mixed, (height, width), WINDOW, padding=1))
        return projected


class PublishedForm(nn.Module):
    """A copy of `network` in the paper's form.

    Args:
        trainable: as it is trained; otherwise in eval mode and without gradients.

    Shape:
        (B, 3, H, W) -> logits of mask, foreground, background and uncertainty, each (B, 1, H, W).
    """

    def __init__(self, network: ConDSeg, *, trainable: bool = False) -> None:
        super().__init__()
        self.network = deepcopy(network).train(trainable).requires_grad_(trainable)
        for module in self.network.modules():
            if type(module) is ContrastDrivenFeatureAggregation:
                module.__class__ = UnfoldedAggregation

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        # The published form keeps for the backward pass whatever it computes.
        places = [patch(f"condseg_sdk.models.{module}.recomputed", _kept) for module in ("layers", "cdfa")]
        with places[0], places[1]:
            return tuple(x for x in self.network(images, aux=True) if x is not None)


def _kept(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    return function(*inputs)
