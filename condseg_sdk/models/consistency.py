"""The stage-1 network: the encoder with a light head (paper, section "Consistency Reinforcement")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.models.condseg import pad_to_stride
from condseg_sdk.models.encoders import build_encoder
from condseg_sdk.models.layers import ConvBN


class ConsistencyNetwork(nn.Module):
    """Encoder and light head; its encoder's weights and BatchNorm statistics start stage 2.

    Each feature map is upsampled and goes through a 1x1 convolution of its own; a bias-free 1x1 convolution over all of
    them gives the logits.

    Args:
        encoder: as in `ConDSeg`.
        width: channels of each 1x1 convolution (64 in the paper).
        full_resolution: upsample to the image's size as in the paper; otherwise to the finest feature map's, and the
            logits from there, which is what a small network can afford.

    Shape:
        (B, 3, H, W) -> logits (B, 1, H, W).
    """

    def __init__(self, *, encoder: str = "resnet50", width: int = 64, full_resolution: bool = True) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder)
        self.full_resolution = full_resolution
        self.convs = nn.ModuleList([ConvBN(channels, width, 1) for channels in self.encoder.channels])
        self.fuse = nn.Conv2d(width * len(self.convs), 1, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = pad_to_stride(images, self.encoder.strides[-1])
        features = self.encoder(padded)
        size = padded.shape[-2:] if self.full_resolution else features[0].shape[-2:]
        # BatchNorm's batch statistics belong to the upsampled maps: the order stays although 1x1 commutes with it.
        resized = [F.interpolate(x, size=size, mode="bilinear", align_corners=True) for x in features]
        logits = self.fuse(torch.cat([conv(x) for conv, x in zip(self.convs, resized, strict=True)], 1))
        if not self.full_resolution:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]
