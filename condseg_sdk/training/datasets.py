"""Images and masks on disk -> pairs -> uint8 tensors in memory at the network's size.

Decoding and resizing happen once; what changes from epoch to epoch (shuffling, augmentation) works on the tensors.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from condseg_sdk.errors import DatasetError
from condseg_sdk.images import IMAGE_SUFFIXES, load_image
from condseg_sdk.preprocessing import Preprocessing

MASK_SUFFIXES = ("_segmentation", "_Segmentation", "_anno", "_mask", "_lesion")
MASK_THRESHOLD = 127  # JPEG masks hold grey levels around 0 and 255


@dataclass(frozen=True)
class Pair:
    """One image file and its mask file."""

    name: str
    image: Path
    mask: Path


def _by_stem(folder: Path, *, strip: Sequence[str] = ()) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: a training set needs images/ and masks/ with matching names")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            stem = next((path.stem.removesuffix(s) for s in strip if path.stem.endswith(s)), path.stem)
            if stem in files:
                raise DatasetError(f"{files[stem]} and {path} have the same name: keep one of them")
            files[stem] = path
    return files


def find_pairs(folder: Path, *, names: Sequence[str] | None = None) -> list[Pair]:
    """Pair images/ and masks/ in a folder by name.

    Args:
        folder: holds images/ and masks/; a mask may carry a suffix of `MASK_SUFFIXES` after the image's name.
        names: only these, without extension, in this order; default: all, sorted.

    Raises:
        DatasetError: a folder is missing, an image has no mask or the other way round, a listed name does not exist.
    """
    images, masks = _by_stem(folder / "images"), _by_stem(folder / "masks", strip=MASK_SUFFIXES)
    if names is None:
        unmatched = sorted(images.keys() ^ masks.keys())
        if unmatched:
            shown = ", ".join(unmatched[:5])
            raise DatasetError(f"{folder}: {len(unmatched)} images or masks without a partner, such as {shown}")
        names = sorted(images)
    missing = [name for name in names if name not in images or name not in masks]
    if missing:
        raise DatasetError(f"{folder}: {len(missing)} listed names lack an image or a mask, such as {missing[0]!r}")
    if not names:
        raise DatasetError(f"{folder}: no images found in images/: supported are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return [Pair(name, images[name], masks[name]) for name in names]


def read_names(path: Path) -> list[str]:
    """Names from a list file: one a line, extension and folders dropped, blank lines skipped."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: the list of names cannot be read ({error}); it must be text, one name a line"
        ) from error
    names = [Path(line.strip()) for line in lines if line.strip()]
    return [name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name for name in names]


def hold_out(pairs: Sequence[Pair], fraction: float, *, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split into (training, held out) at random; both keep the given order and neither is ever empty."""
    if len(pairs) < 2:
        raise DatasetError(f"{len(pairs)} pair is too few: at least one to train on and one to hold out are needed")
    count = min(max(round(len(pairs) * fraction), 1), len(pairs) - 1)
    chosen = set(random.Random(seed).sample(range(len(pairs)), count))
    return (
        [pair for i, pair in enumerate(pairs) if i not in chosen],
        [pair for i, pair in enumerate(pairs) if i in chosen],
    )


def load_mask(path: Path) -> NDArray[np.bool_]:
    """A mask file as bool (H, W): grey above 127, or above 0 where the file's values are just {0, 1}."""
    gray = load_image(path).max(2)
    return gray > (0 if gray.max() <= 1 else MASK_THRESHOLD)


def load_pair(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Image uint8 (H, W, 3) and mask bool (H, W) at the image's own size.

    Raises:
        DatasetError: the two differ in size.
    """
    image, mask = load_image(pair.image), load_mask(pair.mask)
    if image.shape[:2] != mask.shape:
        raise DatasetError(
            f"{pair.image} is {image.shape[1]}x{image.shape[0]} but its mask {pair.mask} "
            f"{mask.shape[1]}x{mask.shape[0]}: they must be of one size"
        )
    return image, mask


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize bool (H, W) to `size` (h, w): a pixel is set where at least half of its area was."""
    if mask.shape == size:
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.5


class CachedPairs(Dataset[tuple[Tensor, Tensor]]):
    """All pairs of a set at one size, as uint8 in memory (0.26 MB each at 256x256).

    Args:
        pairs: at least one.
        preprocessing: says the size and how to get there.

    Items:
        image uint8 (3, h, w) RGB, mask uint8 (1, h, w) in {0, 1}.
    """

    def __init__(self, pairs: Sequence[Pair], preprocessing: Preprocessing) -> None:
        def load(pair: Pair) -> tuple[Tensor, Tensor]:
            image, mask = load_pair(pair)
            small = torch.from_numpy(preprocessing.resize(image)).permute(2, 0, 1).contiguous()
            return small, torch.from_numpy(resize_mask(mask, preprocessing.size)).to(torch.uint8)[None]

        with ThreadPoolExecutor() as pool:
            self.items = list(pool.map(load, pairs))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


class EpochSampler(Sampler[int]):
    """A shuffle that follows from (seed, epoch) alone, so that a resumed run sees the same order."""

    def __init__(self, length: int, *, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) & 0x7FFFFFFF)
        return iter(torch.randperm(self.length, generator=generator).tolist())
