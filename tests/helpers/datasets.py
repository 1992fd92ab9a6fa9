"""Small training sets on disk, for the tests of `condseg_sdk.data`."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.data import Dataset, Pair

SIZE = (20, 30)  # height, width


def picture(name: str, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Coarse noise that follows from the name: no two names look alike, and JPEG keeps it."""
    rng = np.random.default_rng(zlib.crc32(os.fsencode(name)))
    cells = rng.integers(0, 256, (8, 8, 3), np.uint8)
    return np.array(Image.fromarray(cells).resize(size[::-1], Image.Resampling.NEAREST))


def region(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A rectangle without its first corner, about a sixth of the picture, 0 and 255: a whole one would be a box."""
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] * 3 // 4, size[1] // 3 : size[1] * 2 // 3] = 255
    mask[size[0] // 4 :, size[1] // 3 :][: size[0] // 10, : size[1] // 15] = 0
    return mask


def save(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write an image file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def add_pair(image: Path, mask: Path, size: tuple[int, int] = SIZE) -> tuple[Path, Path]:
    """An image of its own and its mask, at these paths."""
    return save(image, picture(str(image), size)), save(mask, region(size))


def make_set(folder: Path, names: Sequence[str], images: str = "images", masks: str = "masks") -> Path:
    """images/NAME.png and masks/NAME.png for each name."""
    for name in names:
        add_pair(folder / images / f"{name}.png", folder / masks / f"{name}.png")
    return folder


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def names(pairs: list[Pair]) -> list[str]:
    """The names of pairs."""
    return [pair.name for pair in pairs]


def matched(dataset: Dataset) -> dict[str, str]:
    """Mask file by image name, in all splits."""
    return {p.name: Path(str(p.mask)).name for part in dataset.splits.values() for p in part}


def errors(dataset: Dataset) -> list[str]:
    """The errors of a dataset, one line each."""
    return [problem.line() for problem in dataset.problems if problem.severity == "error"]


def warnings(dataset: Dataset) -> list[str]:
    """The warnings of a dataset, one line each."""
    return [problem.line() for problem in dataset.problems if problem.severity == "warning"]
