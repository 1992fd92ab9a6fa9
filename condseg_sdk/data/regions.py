"""Draws the polygons and run lengths of annotation files as masks, with pycocotools.

Input that pycocotools would draw wrong, crash on or fill the memory with is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.data.pairs import RegionMask
from condseg_sdk.data.sizes import Size, image_size, size_agreement
from condseg_sdk.errors import CondsegError, DatasetError
from condseg_sdk.images.load import MAX_PIXELS

__all__ = ["SizeMismatchError", "draw", "mask_size", "strays"]

FAR_OUTSIDE = 1.0  # how far a polygon may extend beyond the image, in image sizes; hand-drawn ones do by a few pixels
STRAY = 0.05  # how far beyond the image, in image sizes, an outline causes a warning
MAX_OUTLINE = 5_000_000  # pixels along a polygon; drawing takes about 100 bytes for each


class SizeMismatchError(DatasetError):
    """An annotation file gives an image another aspect ratio than it has."""


def draw(mask: RegionMask) -> NDArray[np.bool_]:
    """Draw all regions of an image as one mask, bool (H, W).

    Raises:
        SizeMismatchError: The file gives the image another aspect ratio than it has.
        DatasetError: A region is neither polygons nor a run-length code, is outside of the image, or covers no pixel.
    """
    size = mask_size(mask)
    if not mask.regions:
        return np.zeros(size, np.bool_)
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise DatasetError(f"{mask.file}: COCO regions need pycocotools; pip install 'condseg_sdk[train]'") from error
    try:
        codes = [code for region in mask.regions for code in _codes(region, mask, size)]
        drawn = np.asarray(coco_mask.decode(coco_mask.merge(codes)), np.bool_)
    except CondsegError:
        raise
    except Exception as error:  # pycocotools is C: TypeError, ValueError, UnicodeError, MemoryError, ...
        raise DatasetError(f"{mask}: a region cannot be drawn ({error}); export the file again") from error
    polygons = list(_polygons(mask))
    if not drawn.any() and polygons:
        left, right = (function(value for p in polygons for value in p[::2]) for function in (min, max))
        upper, lower = (function(value for p in polygons for value in p[1::2]) for function in (min, max))
        unit = "fractions of its width and height" if mask.is_normalized else "pixels of that image"
        raise DatasetError(
            f"{mask}: its outlines cover no pixel (x from {left:g} to {right:g}, y from {upper:g} to {lower:g} in an "
            f"image of {size[1]}x{size[0]}); coordinates must be {unit}"
        )
    return drawn


def mask_size(mask: RegionMask) -> Size:
    """Return the (height, width) at which regions are drawn: the size in the file, otherwise the image's size.

    Raises:
        SizeMismatchError: The file gives the image another aspect ratio than it has.
        DatasetError: The size has more than `MAX_PIXELS` pixels.
        ImageError: The image cannot be read.
    """
    actual = None if mask.image is None else image_size(mask.image)
    size = mask.size or actual
    if size is None:
        raise DatasetError(f"{mask}: neither the file nor an image gives the size; export it again with sizes")
    if actual is not None and size_agreement(actual, size) == "different":
        raise SizeMismatchError(
            f"{mask.image} is {actual[1]}x{actual[0]}, but {size[1]}x{size[0]} in {mask.file}; export it again"
        )
    if math.prod(size) > MAX_PIXELS:
        raise DatasetError(f"{mask}: an image of {size[1]}x{size[0]} is larger than {MAX_PIXELS:,} pixels; correct it")
    return size


def strays(mask: RegionMask) -> bool:
    """Return whether an outline extends so far beyond the image that somebody should check it."""
    size = (1, 1) if mask.is_normalized else mask.size
    if size is None:
        return False
    limits = (size[1], size[0])
    return any(
        not -STRAY * limits[i % 2] <= value <= (1 + STRAY) * limits[i % 2]
        for polygon in _polygons(mask)
        for i, value in enumerate(polygon)
    )


def _polygons(mask: RegionMask) -> Iterator[Sequence[float]]:
    for region in mask.regions:
        if isinstance(region, list):
            yield from region


def _codes(region: Any, mask: RegionMask, size: Size) -> list[Any]:
    """Encode a region as run-length codes of pycocotools."""
    from pycocotools import mask as coco_mask

    if isinstance(region, Mapping):
        counts = _check_run_lengths(region, mask, size)
        return [coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)]
    if not isinstance(region, list) or not region or not all(isinstance(polygon, list) for polygon in region):
        raise DatasetError(f"{mask}: an annotation has no usable 'segmentation'; it must be polygons or run lengths")
    if mask.is_normalized:
        region = [[value * size[1 - i % 2] for i, value in enumerate(polygon)] for polygon in region]
    for polygon in region:
        _check_polygon(polygon, mask, size)
    codes: list[Any] = coco_mask.frPyObjects(region, *size)
    return codes


def _check_run_lengths(region: Mapping[str, Any], mask: RegionMask, size: Size) -> list[int]:
    counts, own_size = region.get("counts"), region.get("size")
    if not isinstance(counts, (str, list)) or not isinstance(own_size, list) or own_size != list(size):
        raise DatasetError(
            f"{mask}: a run-length code of size {str(own_size)[:40]} in an image of {list(size)} (height, width); "
            "both must have the same size and 'counts' a list or a string"
        )
    if isinstance(counts, str):
        counts = _decode_counts(counts, mask)
    if not all(type(n) is int and n >= 0 for n in counts) or sum(counts) != math.prod(size):
        raise DatasetError(f"{mask}: the counts of a run-length code must be whole numbers that sum to its pixels")
    return counts


def _decode_counts(text: str, mask: RegionMask) -> list[int]:
    """Decode the counts of a compressed code, since pycocotools does not check that they fill the image.

    Each character holds five bits, the lowest first, and a sixth that tells whether more follow. From the fourth count
    on, the difference from the count two before is stored.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DatasetError(f"{mask}: a run-length code is damaged; export the file again")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise DatasetError(f"{mask}: a run-length code is damaged; export the file again")
    return counts


def _check_polygon(polygon: Sequence[Any], mask: RegionMask, size: Size) -> None:
    numbers = all(type(value) in (int, float) and abs(value) < math.inf for value in polygon)
    if not numbers or len(polygon) < 6 or len(polygon) % 2:
        raise DatasetError(
            f"{mask}: a polygon needs at least three points [x1, y1, x2, y2, ...], all of them finite numbers"
        )
    limits = ((1 + FAR_OUTSIDE) * size[1], (1 + FAR_OUTSIDE) * size[0])
    if any(not -limits[i % 2] <= value <= limits[i % 2] for i, value in enumerate(polygon)):
        raise DatasetError(f"{mask}: a polygon is far outside of the image; its points must be pixels of that image")
    is_pixel = all(value == int(value) for value in polygon)  # the first pixel of the image
    if not mask.is_normalized and min(size) > 2 and not is_pixel and all(0 <= value <= 1 for value in polygon):
        raise DatasetError(
            f"{mask}: a polygon has coordinates from 0 to 1; they must be pixels: multiply x by {size[1]}, y by "
            f"{size[0]}"
        )
    length = sum(abs(b - a) for axis in (polygon[::2], polygon[1::2]) for a, b in pairwise(axis))
    if length > MAX_OUTLINE:
        raise DatasetError(f"{mask}: a polygon is longer than {MAX_OUTLINE:,} pixels; simplify it")
