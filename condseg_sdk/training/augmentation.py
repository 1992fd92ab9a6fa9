"""Augmentation on whole batches: image and mask move together, every sample draws its own numbers.

Geometry is one resampling and colour one 3x4 matrix per sample, a quarter of the time that a chain of kornia transforms
takes (`benchmarks/training_step.py`). The strong disturbance of stage 1 is kornia's.
"""

from __future__ import annotations

import math

import kornia.augmentation as K
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTATION = math.pi  # radians to each side: endoscopes and microscopes have no up
ZOOM = (0.7, 1.4)
SHEAR = 0.14  # tangent
SHIFT = 0.1  # share of the side
BRIGHTNESS = CONTRAST = SATURATION = 0.3
HUE = 0.25  # radians in the chroma plane, +-4 % of the circle
BLUR_SHARE = 0.1  # of the samples
# NTSC: luma and the two chroma axes of RGB; a rotation of the chroma plane is a change of hue.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def _uniform(count: int, low: float, high: float) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def _rotations(angles: Tensor) -> Tensor:
    """(B,) -> (B, 2, 2)."""
    sine, cosine = angles.sin(), angles.cos()
    return torch.stack((torch.stack((cosine, -sine), 1), torch.stack((sine, cosine), 1)), 1)


def random_affine(count: int) -> Tensor:
    """Random rotation, zoom, shear, shift and mirroring: (B, 2, 3), from output to input in [-1, 1] coordinates."""
    matrix = _rotations(_uniform(count, -ROTATION, ROTATION))
    zoom = _uniform(count, math.log(ZOOM[0]), math.log(ZOOM[1])).exp()
    mirror = torch.randint(0, 2, (count,)) * 2.0 - 1
    shear = torch.eye(2).repeat(count, 1, 1)
    shear[:, 0, 1] = _uniform(count, -SHEAR, SHEAR)
    matrix = matrix @ shear @ torch.diag_embed(torch.stack((mirror / zoom, 1 / zoom), 1))
    return torch.cat((matrix, _uniform(count * 2, -2 * SHIFT, 2 * SHIFT).view(count, 2, 1)), 2)


def random_color(images: Tensor) -> Tensor:
    """Random brightness, contrast, saturation and hue: (B, 3, H, W) in [0, 1] -> the same."""
    count = len(images)
    to_yiq = torch.tensor(RGB_TO_YIQ)
    chroma = torch.eye(3).repeat(count, 1, 1)
    saturation = _uniform(count, 1 - SATURATION, 1 + SATURATION).view(count, 1, 1)
    chroma[:, 1:, 1:] = saturation * _rotations(_uniform(count, -HUE, HUE))
    brightness = _uniform(count, 1 - BRIGHTNESS, 1 + BRIGHTNESS).view(count, 1, 1)
    contrast = _uniform(count, 1 - CONTRAST, 1 + CONTRAST).view(count, 1, 1)
    matrix = (brightness * contrast * (to_yiq.inverse() @ chroma @ to_yiq)).to(images.device)
    gray = (images.mean((2, 3)) @ to_yiq[0].to(images.device)).view(count, 1, 1)
    offset = (brightness * (1 - contrast)).to(images.device) * gray
    return torch.baddbmm(offset, matrix, images.flatten(2)).clamp(0, 1).view_as(images)


class TrainingAugmentation(nn.Module):
    """Geometric and mild photometric augmentation of images and masks together.

    Args:
        size: (H, W) of the result; a batch of another size is resized first.

    Shape:
        images (B, 3, h, w) float32 in [0, 1], masks (B, 1, h, w) in {0, 1} -> the same at `size`.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            masks = (F.interpolate(masks, self.size, mode="bilinear", antialias=True) > 0.5).float()
        grid = F.affine_grid(random_affine(len(images)).to(images.device), list(masks.shape), align_corners=False)
        images = random_color(F.grid_sample(images, grid, align_corners=False))
        blurred = torch.rand(len(images)) < BLUR_SHARE
        if blurred.any():
            images[blurred] = F.avg_pool2d(images[blurred], 3, stride=1, padding=1, count_include_pad=False)
        return images, F.grid_sample(masks, grid, mode="nearest", align_corners=False)


class StrongPhotometric(nn.Module):
    """Aug(X) of stage 1: brightness, contrast, saturation, hue, grayscale, blur; geometry stays.

    Shape:
        (B, 3, H, W) float32 in [0, 1] -> the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            K.ColorJitter(0.5, 0.5, 0.5, 0.1, p=0.9),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((7, 7), (0.5, 2.0), p=0.5),
        )

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.layers(images).clamp(0, 1)
        return result


def seed_batch(seed: int, epoch: int, batch: int) -> None:
    """Make the augmentation of a batch follow from (seed, epoch, batch), so that a resumed run draws the same."""
    torch.manual_seed(hash((seed, epoch, batch)) & 0x7FFFFFFF)
