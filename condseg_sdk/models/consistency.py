"""The network of stage 1: the encoder with a light head (paper, section "Consistency Reinforcement")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.models.condseg import pad_to_stride
from condseg_sdk.models.encoders import build_encoder
from condseg_sdk.models.layers import ConvBN


class ConsistencyNetwork(nn.Module):
    """Encoder with a light head; stage 2 starts from the encoder's weights and BatchNorm statistics.

    Each feature map is upsampled and goes through a 1x1 convolution of its own. A 1x1 convolution without bias over all
    of them computes the logits.

    Args:
        encoder: Name of the encoder, as in `ConDSeg`.
        width: Number of channels of each 1x1 convolution; 64 in the paper.
        full_resolution: Whether to upsample the feature maps to the size of the image, as in the paper. Otherwise they
            are upsampled to the size of the finest one, and the logits from there, which is cheaper.

    Example:
        >>> ConsistencyNetwork(encoder="efficientnet_lite0")(torch.zeros(2, 3, 32, 64)).shape
        torch.Size([2, 1, 32, 64])
    """

    def __init__(self, *, encoder: str = "resnet50", width: int = 64, full_resolution: bool = True) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder)
        self.full_resolution = full_resolution
        self.convs = nn.ModuleList([ConvBN(channels, width, 1) for channels in self.encoder.channels])
        self.fuse = nn.Conv2d(width * len(self.convs), 1, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (B, 1, H, W) of images (B, 3, H, W)."""
        height, width = images.shape[-2:]
        padded = pad_to_stride(images, self.encoder.strides[-1])
        features = self.encoder(padded)
        size = padded.shape[-2:] if self.full_resolution else features[0].shape[-2:]
        # BatchNorm takes its statistics from the upsampled maps, so the 1x1 convolutions cannot come first.
        resized = [F.interpolate(x, size=size, mode="bilinear", align_corners=True) for x in features]
        logits = self.fuse(torch.cat([conv(x) for conv, x in zip(self.convs, resized, strict=True)], 1))
        if not self.full_resolution:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]
