"""Estimates the memory that a pair needs from the headers of its files, and limits what threads hold at once."""

from __future__ import annotations

from math import prod
from pathlib import Path

from condseg_sdk.data.arrays import ARRAY_SUFFIXES, array_bytes
from condseg_sdk.data.pairs import IndexedMask, MaskSource, MergedMask, Pair, RegionMask
from condseg_sdk.data.sizes import image_size
from condseg_sdk.images.memory_budget import MemoryBudget

__all__ = ["PAIRS_IN_WORK", "pair_bytes"]

PAIRS_IN_WORK = MemoryBudget(640_000_000)
"""Memory for pairs that are being read: small ones are read in parallel, a huge one alone."""

BYTES_PER_PIXEL = 10  # memory for an image or a mask while it is decoded, resized and checked
ARRAY_COPIES = 4  # number of copies of an array while its values are checked


def pair_bytes(pair: Pair) -> int:
    """Estimate from headers how many bytes a pair needs while it is read.

    Raises:
        ImageError: The header of the image cannot be read.
        DatasetError: The header of the mask cannot be read, or announces too large a mask.
    """
    return BYTES_PER_PIXEL * prod(image_size(pair.image)) + _mask_bytes(pair.mask, pair.image)


def _mask_bytes(mask: MaskSource, image: Path) -> int:
    if isinstance(mask, MergedMask):
        return sum(_mask_bytes(file, image) for file in mask.files or mask.others[:1])
    if isinstance(mask, IndexedMask):
        return _mask_bytes(mask.file, image)
    if isinstance(mask, RegionMask):
        return BYTES_PER_PIXEL * prod(mask.size or image_size(image))
    if mask.suffix.lower() in ARRAY_SUFFIXES:
        return ARRAY_COPIES * array_bytes(mask)
    return BYTES_PER_PIXEL * prod(image_size(mask))
