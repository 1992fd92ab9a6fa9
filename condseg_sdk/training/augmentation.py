"""Augmentation of batches on their device: the same geometric changes for image and mask, different ones per sample.

Geometry is one resampling and color one 3x4 matrix per sample, which takes a quarter of the time of a chain of kornia
transforms (`benchmarks/training_step.py`). All random numbers are passed in (`randomness.py`), uniform in [0, 1), so
that the augmentation of a sample does not depend on the rest of its batch. Only rounding does: on some processors
matrix products of other batch sizes use other kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.training.artifacts import RandomArtifacts
from condseg_sdk.training.config import Augmentation
from condseg_sdk.training.degradation import RandomDegradation
from condseg_sdk.training.randomness import scaled

__all__ = ["StrongPhotometric", "TrainingAugmentation"]

ZOOM = (0.7, 1.4)
SHEAR = 0.14  # tangent
SHIFT = 0.1  # fraction of the side
UPRIGHT_ROTATION = math.pi / 12
BLUR_SHARE = 0.1  # share of the samples
# NTSC: luma and two chroma axes. A rotation in the chroma plane changes the hue.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class ColorRange:
    """Ranges of random color changes.

    Attributes:
        brightness: Largest deviation of the brightness factor from 1.
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Largest rotation in the chroma plane, in radians.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float


MILD = ColorRange(0.3, 0.3, 0.3, 0.25)
STRONG = ColorRange(0.5, 0.5, 0.5, 0.63)  # +-10 % of the circle


def _rotations(angles: Tensor) -> Tensor:
    """Rotation matrices (B, 2, 2) for angles (B,) in radians."""
    sine, cosine = angles.sin(), angles.cos()
    return torch.stack((torch.stack((cosine, -sine), 1), torch.stack((sine, cosine), 1)), 1)


GEOMETRY_NUMBERS = 6


def affine(u: Tensor, *, upright: bool = False) -> Tensor:
    """Return random affine matrices: rotation, zoom, shear, shift and mirroring.

    Args:
        u: Random numbers (B, 6) in [0, 1).
        upright: Whether rotations are small.

    Returns:
        Matrices (B, 2, 3) from output to input coordinates, both in [-1, 1], for `torch.nn.functional.affine_grid`.
    """
    limit = (
        UPRIGHT_ROTATION if upright else math.pi
    )  # images from endoscopes and microscopes have no natural orientation
    matrix = _rotations(scaled(u[:, 0], -limit, limit))
    zoom = scaled(u[:, 1], math.log(ZOOM[0]), math.log(ZOOM[1])).exp()
    mirror = (u[:, 2] < 0.5) * 2.0 - 1
    shear = torch.eye(2).repeat(len(u), 1, 1)
    shear[:, 0, 1] = scaled(u[:, 3], -SHEAR, SHEAR)
    matrix = matrix @ shear @ torch.diag_embed(torch.stack((mirror / zoom, 1 / zoom), 1))
    return torch.cat((matrix, scaled(u[:, 4:6], -2 * SHIFT, 2 * SHIFT).unsqueeze(2)), 2)


COLOR_NUMBERS = 4


def recolor(images: Tensor, u: Tensor, limits: ColorRange, *, gray: Tensor | None = None) -> Tensor:
    """Change brightness, contrast, saturation and hue at random, with one matrix per sample.

    Args:
        images: RGB images (B, 3, H, W) in [0, 1].
        u: Random numbers (B, 4) in [0, 1).
        limits: Ranges of the changes.
        gray: Bool (B,), True for images that become gray.

    Returns:
        Images of the same shape, in [0, 1].
    """
    count, device = len(images), images.device
    to_yiq = torch.tensor(RGB_TO_YIQ)
    saturation = scaled(u[:, 2], 1 - limits.saturation, 1 + limits.saturation)
    if gray is not None:
        saturation = saturation.masked_fill(gray, 0.0)
    chroma = torch.eye(3).repeat(count, 1, 1)
    chroma[:, 1:, 1:] = saturation.view(-1, 1, 1) * _rotations(scaled(u[:, 3], -limits.hue, limits.hue))
    brightness = scaled(u[:, 0], 1 - limits.brightness, 1 + limits.brightness).view(-1, 1, 1)
    contrast = scaled(u[:, 1], 1 - limits.contrast, 1 + limits.contrast).view(-1, 1, 1)
    matrix = (brightness * contrast * (to_yiq.inverse() @ chroma @ to_yiq)).to(device)
    mean = (images.mean((2, 3)) @ to_yiq[0].to(device)).view(-1, 1, 1)
    offset = (brightness * (1 - contrast)).to(device) * mean
    return torch.baddbmm(offset, matrix, images.flatten(2)).clamp(0, 1).view_as(images)


class TrainingAugmentation(nn.Module):
    """Geometric and mild photometric augmentation of images and masks.

    Args:
        size: (height, width) of the result; a batch of another size is resized first.
        kind: What is changed, as in `FinetuneConfig.augmentation`.

    Shape:
        images (B, 3, h, w) float32 in [0, 1], masks (B, 1, h, w) in {0, 1}, random numbers (B, 48) in [0, 1) ->
        images (B, 3, *size) and masks (B, 1, *size).
    """

    numbers = GEOMETRY_NUMBERS + COLOR_NUMBERS + 1 + RandomArtifacts.numbers + RandomDegradation.numbers

    def __init__(self, size: tuple[int, int], kind: Augmentation = "full") -> None:
        super().__init__()
        self.size = size
        self.kind = kind
        self.artifacts = RandomArtifacts()
        self.degradation = RandomDegradation()

    def forward(self, images: Tensor, masks: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return augmented images and masks."""
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            masks = (F.interpolate(masks, self.size, mode="bilinear", antialias=True) > 0.5).float()
        if self.kind == "none":
            return images, masks
        geometry, color, blur, artifacts, degradation = u.split(
            [GEOMETRY_NUMBERS, COLOR_NUMBERS, 1, RandomArtifacts.numbers, RandomDegradation.numbers], 1
        )
        matrices = affine(geometry, upright=self.kind == "upright").to(images.device)
        grid = F.affine_grid(matrices, list(masks.shape), align_corners=False)
        images = F.grid_sample(images, grid, align_corners=False)
        images = recolor(images, color, MILD)
        blurred = blur[:, 0] < BLUR_SHARE
        if blurred.any():
            images[blurred] = F.avg_pool2d(images[blurred], 3, stride=1, padding=1, count_include_pad=False)
        masks = F.grid_sample(masks, grid, mode="nearest", align_corners=False)
        if self.kind == "endoscopy":
            images, masks = self.artifacts(images, masks, artifacts)
            images = self.degradation(images, degradation)  # last: a recorder degrades overlays, too
        return images, masks


class StrongPhotometric(nn.Module):
    """Strong photometric augmentation, Aug(X) of stage 1: brightness, contrast, saturation, hue, grayscale, blur.

    Shape:
        images (B, 3, H, W) float32 in [0, 1], random numbers (B, 8) in [0, 1) -> images of the same shape.
    """

    numbers = COLOR_NUMBERS + 4
    color_share, gray_share, blur_share = 0.9, 0.2, 0.5
    blur_sigma = (0.5, 2.0)

    def forward(self, images: Tensor, u: Tensor) -> Tensor:
        """Return augmented images."""
        colored, gray, blurred = u[:, 4] < self.color_share, u[:, 5] < self.gray_share, u[:, 6] < self.blur_share
        color = torch.where(colored[:, None], u[:, :COLOR_NUMBERS], 0.5)  # the middle of each range is no change
        images = recolor(images, color, STRONG, gray=gray)
        if blurred.any():
            sigma = scaled(u[blurred, 7], *self.blur_sigma).to(images.device)
            images[blurred] = gaussian_blur2d(images[blurred], (7, 7), sigma.unsqueeze(1).expand(-1, 2))
        return images.clamp(0, 1)
