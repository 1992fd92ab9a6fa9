"""Degradation: each kind is compared with another implementation, and its share with the documented one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from condseg_sdk.training.degradation import RandomDegradation
from condseg_sdk.training.randomness import uniforms

SIZE = (64, 96)
NO = 0.99  # above every share
COARSE, NOISE, JPEG = slice(0, 2), slice(2, 5), slice(5, 7)


def record(images: Tensor, **kinds: list[float]) -> Tensor:
    """Degrade all images with the same random numbers, by the kinds that are named only."""
    u = torch.full((len(images), RandomDegradation.numbers), NO)
    for place, values in ((COARSE, "coarse"), (NOISE, "noise"), (JPEG, "jpeg")):
        if values in kinds:
            u[:, place] = torch.tensor(kinds[values])
    return RandomDegradation()(images, u)


@pytest.fixture(scope="module")
def scene() -> Tensor:
    """Tissue with an edge and some noise, (1, 3, H, W)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE[0]), torch.linspace(0, 1, SIZE[1]), indexing="ij")
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.06) * 0.3
    tissue = torch.stack([0.4 + 0.3 * x + disc, 0.3 + 0.2 * y + disc, 0.3 - 0.1 * x])
    grain = 0.05 * torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    return (tissue + grain)[None].clamp(0, 1).float()


def test_images_that_are_not_degraded_stay_the_same(scene: Tensor) -> None:
    assert torch.equal(record(scene), scene)


@pytest.mark.parametrize("quality", [10, 25, 60])
def test_compression_is_that_of_a_jpeg_file(scene: Tensor, quality: int) -> None:
    ours = record(scene, jpeg=[0.0, (quality - 10) / 50])[0]
    bgr = (scene[0].permute(1, 2, 0).numpy()[..., ::-1] * 255 + 0.5).astype(np.uint8)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    theirs = torch.from_numpy(decoded[..., ::-1] / 255.0).permute(2, 0, 1)
    lost = (theirs - scene[0]).abs().mean()
    assert (ours - theirs).abs().mean() < 0.4 * lost
    assert (ours - scene[0]).abs().mean() == pytest.approx(float(lost), rel=0.3)


def test_noise_has_its_sigma_and_its_own_seed() -> None:
    gray = torch.full((2, 3, 200, 200), 0.5)
    u = torch.full((2, RandomDegradation.numbers), NO)
    u[:, NOISE] = torch.tensor([[0.0, 0.5, 0.1], [0.0, 0.5, 0.2]])
    first, second = RandomDegradation()(gray, u) - 0.5
    for grain in (first, second):
        assert grain.mean().abs() < 1e-3
        assert float(grain.std()) == pytest.approx(0.055, rel=0.02)  # half way from 0.01 to 0.1
    assert abs(float((first * second).mean())) < 0.02 * 0.055**2


def test_low_resolution_removes_fine_patterns_only(scene: Tensor) -> None:
    """A checkerboard of single pixels becomes gray at 0.3 of the side; a gradient stays within a gray value or two."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    board = ((x + y) % 2).float().expand(1, 3, -1, -1)
    middle = record(board, coarse=[0.0, 0.0])[..., 8:-8, 8:-8]
    assert (middle - 0.5).abs().max() < 0.1
    gradient = torch.linspace(0.2, 0.8, SIZE[1]).expand(1, 3, SIZE[0], -1)
    assert (record(gradient, coarse=[0.0, 0.0]) - gradient)[..., 8:-8].abs().max() < 0.01
    assert not torch.equal(record(scene, coarse=[0.0, 0.0]), scene)


def test_shares_of_degraded_images_are_as_documented() -> None:
    count = 500
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    recorded = RandomDegradation()(images, uniforms((0, 2, 0), torch.arange(count), RandomDegradation.numbers))
    assert 0 <= recorded.min() <= recorded.max() <= 1
    changed = (recorded != images).flatten(1).any(1).float().mean()
    assert 0.4 < changed < 0.51  # 1 - 0.85 * 0.8 * 0.8 = 0.456
