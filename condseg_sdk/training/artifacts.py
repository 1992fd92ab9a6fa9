"""Augmentation with artifacts of cameras and screens: black corners, overlay boxes, specular highlights.

A network trained on images from a single hospital's recorder learns the recorder's corners and position box. Random
ones teach it to ignore them. All random numbers are passed in, as in `augmentation.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RandomArtifacts"]

APERTURE_SHARE, BOX_SHARE, HIGHLIGHT_SHARE = 0.35, 0.3, 0.3
APERTURE_AXES = (0.85, 1.25)  # half-axes of the field of view; those of the image are 1
APERTURE_POWERS = (2.0, 8.0)  # n in |x/a|^n + |y/b|^n: from an ellipse to almost a rectangle
BOX_SIDES = (0.2, 0.7)  # relative to an image whose sides are 2
HIGHLIGHTS = 4
HIGHLIGHT_RADIUS = (0.02, 0.08)

APERTURE_NUMBERS, BOX_NUMBERS, HIGHLIGHT_NUMBERS = 5, 8, 1 + 4 * HIGHLIGHTS


def _between(u: Tensor, low: float, high: float) -> Tensor:
    """Scale numbers (B,) from [0, 1) to [low, high), as (B, 1, 1) to broadcast over maps."""
    return (low + (high - low) * u).view(-1, 1, 1)


class RandomArtifacts(nn.Module):
    """Draw artifacts on some of the images. Masks become background where they are covered; highlights do not cover.

    Shape:
        images (B, 3, H, W) float32 in [0, 1], masks (B, 1, H, W) in {0, 1}, random numbers (B, 30) in [0, 1) ->
        images and masks of the same shapes.
    """

    numbers = APERTURE_NUMBERS + BOX_NUMBERS + HIGHLIGHT_NUMBERS

    def forward(self, images: Tensor, masks: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and masks with artifacts."""
        height, width = images.shape[-2:]
        u = u.to(images.device)
        aperture, box, highlight = u.split([APERTURE_NUMBERS, BOX_NUMBERS, HIGHLIGHT_NUMBERS], 1)
        y = torch.linspace(-1, 1, height, device=images.device).view(1, -1, 1)
        x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, -1)
        images = torch.lerp(images, images.new_ones(()), _highlights(highlight, y, x).unsqueeze(1))
        outside = _outside(aperture, y, x).unsqueeze(1)
        images = torch.where(outside, 0.05 * aperture[:, 4].view(-1, 1, 1, 1), images)
        covered = _box(box, y, x).unsqueeze(1)
        images = torch.where(covered, box[:, 5:8].view(-1, 3, 1, 1), images)
        return images, masks.masked_fill(outside | covered, 0)


def _outside(u: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bool (B, H, W): outside of the field of view of the optics."""
    a, b = _between(u[:, 1], *APERTURE_AXES), _between(u[:, 2], *APERTURE_AXES)
    power = _between(u[:, 3], *APERTURE_POWERS)
    return ((x / a).abs() ** power + (y / b).abs() ** power > 1) & (u[:, 0] < APERTURE_SHARE).view(-1, 1, 1)


def _box(u: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bool (B, H, W): covered by a box in one of the corners."""
    right, lower = (_between((u[:, i] < 0.5).float(), -1, 1) for i in (1, 2))
    inside = (x * right > 1 - _between(u[:, 3], *BOX_SIDES)) & (y * lower > 1 - _between(u[:, 4], *BOX_SIDES))
    return inside & (u[:, 0] < BOX_SHARE).view(-1, 1, 1)


def _highlights(u: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Float (B, H, W) in [0, 1]: share of reflected light in each pixel, in ellipses with soft edges."""
    light = torch.zeros(len(u), y.shape[1], x.shape[2], device=u.device)
    for place_x, place_y, radius, slimness in u[:, 1:].view(-1, HIGHLIGHTS, 4).permute(1, 2, 0):
        r = _between(radius, *HIGHLIGHT_RADIUS)
        dx, dy = (x - _between(place_x, -1, 1)) / r, (y - _between(place_y, -1, 1)) / (r * _between(slimness, 0.4, 2))
        light = torch.maximum(light, (2 - (dx**2 + dy**2)).clamp(0, 1))
    return light * (u[:, 0] < HIGHLIGHT_SHARE).view(-1, 1, 1)
