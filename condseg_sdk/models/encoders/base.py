"""What the rest of the network needs to know about an encoder."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """Base of all encoders: `forward` maps (B, 3, H, W) to four feature maps.

    Attributes:
        channels: of the four maps, finest first.
        strides: of the four maps; each is twice the one before. H and W must be multiples of the last.
    """

    channels: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        raise NotImplementedError
