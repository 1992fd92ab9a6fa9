"""Data and a base that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condseg_sdk import ConDSeg, Preprocessing
from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint
from tests.helpers.networks import TINY


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images with a bright disc, which is the mask."""
    folder = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:70, :90]
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(10):
        y, x = rng.integers(20, 50), rng.integers(25, 65)
        mask = (rows - y) ** 2 + (columns - x) ** 2 < 200
        pixels = rng.integers(0, 60, (70, 90, 3)) + 180 * mask[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint at 32x32 to start from."""
    torch.manual_seed(0)
    config = CheckpointConfig(TINY, Preprocessing((32, 32)), 0.5, {})
    return save_checkpoint(tmp_path_factory.mktemp("base") / "tiny", ConDSeg(**TINY), config)
