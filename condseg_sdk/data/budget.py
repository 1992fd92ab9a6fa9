"""What a pair takes in memory, known from its files' headers, and how much of that threads hold at once."""

from __future__ import annotations

from math import prod
from pathlib import Path

from condseg_sdk.data.arrays import ARRAY_SUFFIXES, array_bytes
from condseg_sdk.data.pairs import MaskSource, MergedMask, Pair, RegionMask
from condseg_sdk.data.sizes import image_size
from condseg_sdk.images.memory_budget import MemoryBudget

__all__ = ["PAIRS_IN_WORK", "pair_bytes"]

PAIRS_IN_WORK = MemoryBudget(640_000_000)
"""Small pairs are read in parallel; a huge one waits until it is alone."""

BYTES_PER_PIXEL = 10  # of an image or a mask while it is decoded, resized and looked at
ARRAY_COPIES = 4  # of an array while its values are looked at


def pair_bytes(pair: Pair) -> int:
    """Estimate what a pair's files take while they are read, from their headers.

    Raises:
        ImageError: A header cannot be read.
        DatasetError: A header cannot be read, or promises too much.
    """
    return BYTES_PER_PIXEL * prod(image_size(pair.image)) + _mask_bytes(pair.mask, pair.image)


def _mask_bytes(mask: MaskSource, image: Path) -> int:
    if isinstance(mask, MergedMask):
        return sum(_mask_bytes(file, image) for file in mask.files)
    if isinstance(mask, RegionMask):
        return BYTES_PER_PIXEL * prod(mask.size or image_size(image))
    if mask.suffix.lower() in ARRAY_SUFFIXES:
        return ARRAY_COPIES * array_bytes(mask)
    return BYTES_PER_PIXEL * prod(image_size(mask))
