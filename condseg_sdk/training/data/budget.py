"""A limit on what several threads hold in memory at once, counted in pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from condseg_sdk.training.data.arrays import ARRAY_SUFFIXES, array_bytes
from condseg_sdk.training.data.pairs import MaskSource, MergedMask, Pair, RegionMask
from condseg_sdk.training.data.sizes import image_size

__all__ = ["PIXELS_AT_ONCE", "PixelBudget", "pair_pixels"]

PIXELS_AT_ONCE = 64_000_000
"""Pixels of images and masks that are in work at once. Each takes up to ten bytes while it is decoded and checked."""


class PixelBudget:
    """Lets threads go on while what they decode fits into memory together.

    Small images are decoded in parallel; a huge one waits until it is alone.

    Args:
        pixels: Number of pixels that may be in work at once. A larger image counts as that many.

    Example:
        >>> budget = PixelBudget(1_000_000)
        >>> with budget.reserve(640 * 480):
        ...     pass
    """

    def __init__(self, pixels: int = PIXELS_AT_ONCE) -> None:
        self._total = pixels
        self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until this number of pixels is free, and keep it for the length of a block."""
        needed = min(pixels, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= needed)
            self._free -= needed
        try:
            yield
        finally:
            with self._changed:
                self._free += needed
                self._changed.notify_all()


def pair_pixels(pair: Pair) -> int:
    """Count what a pair's files will take, from their headers.

    Raises:
        ImageError: A header cannot be read.
        DatasetError: A header cannot be read, or promises too much.
    """
    return prod(image_size(pair.image)) + _mask_pixels(pair.mask, pair.image)


def _mask_pixels(mask: MaskSource, image: Path) -> int:
    if isinstance(mask, RegionMask):
        return prod(mask.size or image_size(image))
    if isinstance(mask, MergedMask):
        return sum(_mask_pixels(file, image) for file in mask.files)
    return array_bytes(mask) if mask.suffix.lower() in ARRAY_SUFFIXES else prod(image_size(mask))
