"""Augmentation that degrades an image in the way recorders do: sensor noise, low resolution, JPEG compression.

Images of an older recorder, or frames of a video, are worse than those of a published dataset. All random numbers are
passed in, as in `augmentation.py`.
"""

from __future__ import annotations

import torch
from kornia.enhance import jpeg_codec_differentiable
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.training.randomness import scaled

__all__ = ["RandomDegradation"]

COARSE_SHARE, NOISE_SHARE, JPEG_SHARE = 0.15, 0.2, 0.2
COARSE_SCALE = (0.3, 0.8)  # fraction of the side
NOISE_SIGMA = (0.01, 0.1)
JPEG_QUALITY = (10.0, 60.0)


class RandomDegradation(nn.Module):
    """Degrade some of the images in the way a poor recorder does. The masks stay as they are.

    Shape:
        images (B, 3, H, W) float32 in [0, 1], random numbers (B, 7) in [0, 1) -> images of the same shape.
    """

    numbers = 2 + 3 + 2

    def forward(self, images: Tensor, u: Tensor) -> Tensor:
        """Return degraded images."""
        coarse, noise, compression = u.cpu().double().split([2, 3, 2], 1)
        # One image at a time: each has its own scale, and must not depend on the rest of the batch.
        return torch.stack([_degraded(*each) for each in zip(images, coarse, noise, compression, strict=True)])


def _degraded(image: Tensor, coarse: Tensor, noise: Tensor, compression: Tensor) -> Tensor:
    if coarse[0] < COARSE_SHARE:
        image = _coarsened(image, float(scaled(coarse[1], *COARSE_SCALE)))
    if noise[0] < NOISE_SHARE:
        generator = torch.Generator().manual_seed(int(noise[2] * 2**24))  # float32 has 2**24 steps in [0, 1)
        grain = torch.randn(image.shape, generator=generator).to(image)
        image = (image + scaled(noise[1], *NOISE_SIGMA).to(image) * grain).clamp(0, 1)
    if compression[0] < JPEG_SHARE:
        quality = scaled(compression[1:], *JPEG_QUALITY).to(image)
        image = jpeg_codec_differentiable(image.unsqueeze(0), quality).squeeze(0)
    return image


def _coarsened(image: Tensor, scale: float) -> Tensor:
    height, width = image.shape[-2:]
    small = max(1, round(height * scale)), max(1, round(width * scale))
    coarse = F.interpolate(image.unsqueeze(0), small, mode="bilinear", antialias=True)
    return F.interpolate(coarse, (height, width), mode="bilinear").squeeze(0)
