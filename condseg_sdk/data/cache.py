"""Loads pairs as uint8 tensors at the network's size, decoded and resized once for all epochs."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from condseg_sdk.data.budget import PAIRS_IN_WORK, pair_bytes
from condseg_sdk.data.masks import load_mask_of, resize_mask
from condseg_sdk.data.pairs import Pair
from condseg_sdk.errors import OutputError
from condseg_sdk.field_of_view import crop
from condseg_sdk.images.load import load_image
from condseg_sdk.prefetch import DECODERS, prefetch_map, worker_threads
from condseg_sdk.preprocessing import Preprocessing

__all__ = ["MEMORY_LIMIT", "CachedPairs", "load_pair"]

logger = logging.getLogger("condseg_sdk")

MEMORY_LIMIT = 4 * 1024**3
"""Number of bytes up to which a dataset is kept in memory: 16,000 pairs at 256x256. A larger one is mapped."""

LOST_SHARE = 0.005
"""Share of a mask's foreground outside of the field of view above which a warning names the image."""


def load_pair(pair: Pair, *, bits: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Load an image and its mask at the size of the image.

    A mask of the same proportions at another scale is resized.

    Args:
        pair: The pair.
        bits: Number of bits in use if the image has 16-bit values, as in `load_image`.

    Returns:
        Image, RGB uint8 (H, W, 3), and mask, bool (H, W).

    Raises:
        DatasetError: Image and mask have different proportions, or the values of the mask are not a mask.
        ImageError: A file cannot be read.

    Example:
        >>> from condseg_sdk import open_dataset
        >>> image, mask = load_pair(open_dataset("my_dataset").train[0])
        >>> image.shape, mask.dtype
        ((20, 30, 3), dtype('bool'))
    """
    image = load_image(pair.image, bits=bits)
    return image, load_mask_of(pair, (image.shape[0], image.shape[1]))


class CachedPairs(Dataset[tuple[Tensor, Tensor]]):
    """All pairs of a dataset at one size, as uint8 (0.26 MB per pair at 256x256).

    Up to `MEMORY_LIMIT` bytes are kept in memory. A larger dataset is written to a temporary file and mapped, so that
    the system keeps in memory what fits; the file has no name and disappears with the process.

    Images and masks are cropped to the field of view if the preprocessing does that. Foreground outside of it is seen
    neither in training nor in validation, while `evaluate` counts it as missed; a warning names the images.

    An item is an image, RGB uint8 (3, h, w), and its mask, uint8 (1, h, w) in {0, 1}.

    Args:
        pairs: At least one pair.
        preprocessing: Preprocessing of the network, which sets the size.
        folder: Folder for the file of a large dataset; None for the system's folder for temporary files.

    Raises:
        DatasetError: Image and mask of a pair do not fit together.
        OutputError: The folder has no space for the file.
        ImageError: A file cannot be read.
    """

    def __init__(self, pairs: Sequence[Pair], preprocessing: Preprocessing, *, folder: Path | None = None) -> None:
        def load(pair: Pair) -> NDArray[np.uint8]:
            with PAIRS_IN_WORK.reserve(pair_bytes(pair)):
                image, mask = load_pair(pair, bits=preprocessing.bits)
                box = preprocessing.find_field_of_view(image)
                image, inside = crop(image, box), crop(mask, box)
                if np.count_nonzero(inside) < (1 - LOST_SHARE) * np.count_nonzero(mask):
                    lost.append(pair.name)
                planes = (*np.moveaxis(preprocessing.resize(image), 2, 0), resize_mask(inside, preprocessing.size))
            return np.stack(planes, dtype=np.uint8, casting="unsafe")

        lost: list[str] = []

        shape = (len(pairs), 4, *preprocessing.size)
        with worker_threads(DECODERS) as pool:
            items = prefetch_map(load, pairs, pool=pool, ahead=2 * DECODERS)
            values = _mapped(items, shape, folder) if math.prod(shape) > MEMORY_LIMIT else _collected(items, shape)
        self.values = torch.from_numpy(values)
        if lost:
            logger.warning(
                "in %d of %d images part of the foreground is outside of the detected field of view and is ignored, "
                "first in %s: check them, and train with field_of_view='none' if there are many",
                len(lost),
                len(pairs),
                min(lost),
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        planes = self.values[index]
        return planes[:3], planes[3:]


def _collected(items: Iterator[NDArray[np.uint8]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    values = np.empty(shape, np.uint8)
    for i, item in enumerate(items):
        values[i] = item
    return values


def _mapped(items: Iterator[NDArray[np.uint8]], shape: tuple[int, ...], folder: Path | None) -> NDArray[np.uint8]:
    # Written first and mapped then: a full disk is an error here, where writing to a map would kill the process.
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            for item in items:
                file.write(item.tobytes())
            file.flush()
        except OSError as error:
            raise OutputError(
                f"{folder or tempfile.gettempdir()} has no space for {math.prod(shape) / 1e9:.0f} GB of resized images "
                f"({error.strerror}); free it, choose another output_dir or a smaller image_size",
                path=folder or tempfile.gettempdir(),
            ) from error
        return np.memmap(file, np.uint8, mode="c", shape=shape)
