"""Reads mask files as people store them, by one rule, as bool (H, W).

0 is background. If a file has one other value, that value is foreground, at any bit depth: {0, 1}, {0, 255},
{0, 65535}. JPEG files, and gray levels that only appear along edges, are thresholded; gray levels that fill areas are
labels of instances or classes, and all of them are foreground. docs/data.md has the complete rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps

from condseg_sdk.data import regions
from condseg_sdk.data.arrays import ARRAY_SUFFIXES, read_array
from condseg_sdk.data.pairs import IndexedMask, MaskSource, MergedMask, Pair, RegionMask
from condseg_sdk.data.sizes import Size, size_agreement
from condseg_sdk.errors import DatasetError
from condseg_sdk.images.files import open_image, orientation_of
from condseg_sdk.images.load import IMAGE_SUFFIXES
from condseg_sdk.opencv import cv2

__all__ = ["MASK_SUFFIXES", "MaskReading", "load_mask", "load_mask_of", "read_mask", "resize_mask"]

MASK_SUFFIXES = IMAGE_SUFFIXES | ARRAY_SUFFIXES
MASK_THRESHOLD = 127
"""Gray level above which a pixel of a JPEG mask is foreground; JPEG does not keep 0 and 255 exactly."""

STRAYING = "with outlines that extend beyond the image; check that their coordinates are pixels of that image"

COUNTED_AT_ONCE = 2**20  # pixels
FEW_VALUES = 8  # labels come in a handful of values, noise and smooth edges in dozens
CLEAR = 1 / 8  # share of the largest value that still counts as black, or as white if counted from the top
UNCLEAR_SHARE = 0.25  # share of gray among pixels that are not black; smooth edges have less


@dataclass(frozen=True)
class MaskReading:
    """A mask and how its file was understood.

    Attributes:
        mask: Mask, bool (H, W), upright, True for foreground.
        kind: How its values were read.
        remark: Reason why somebody should check the file, or None. Files of the same kind have the same text.
        turned: Whether the file has an EXIF orientation of its own.
    """

    mask: NDArray[np.bool_]
    kind: str
    remark: str | None = None
    turned: bool = False


def load_mask(source: MaskSource) -> NDArray[np.bool_]:
    """Load a mask from a file, from several files, or from regions of an annotation file.

    Args:
        source: Path, several paths to merge, or regions.

    Returns:
        Mask, bool (H, W), upright, True for foreground.

    Raises:
        DatasetError: The values are not a mask: negative, not finite, or several masks in one file.
        ImageError: The file cannot be read.

    Example:
        >>> from condseg_sdk import open_dataset
        >>> load_mask(open_dataset("my_dataset").train[0].mask).shape
        (20, 30)
    """
    return read_mask(source).mask


def load_mask_of(pair: Pair, size: Size) -> NDArray[np.bool_]:
    """Load the mask of a pair at its image's size (height, width); a mask of the same proportions is resized.

    Raises:
        DatasetError: The proportions differ, or as in `load_mask`.
        ImageError: The file cannot be read.
    """
    mask = load_mask(pair.mask)
    given = (mask.shape[0], mask.shape[1])
    if size_agreement(size, given) == "different":
        sizes = f"{size[1]}x{size[0]} but its mask {pair.mask} {given[1]}x{given[0]}"
        raise DatasetError(f"{pair.image} is {sizes}: they must have the same size")
    return resize_mask(mask, size)


def read_mask(source: MaskSource) -> MaskReading:
    """Load a mask as `load_mask` does, and return how the file was read.

    Raises:
        DatasetError: As in `load_mask`.
        ImageError: As in `load_mask`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mask.png"
        >>> Image.fromarray(np.array([[0, 1]], np.uint16)).save(path)
        >>> read_mask(path)
        MaskReading(mask=array([[False,  True]]), kind='two values', remark=None, turned=False)
    """
    if isinstance(source, RegionMask):
        drawn = regions.draw(source)
        return MaskReading(drawn, source.kind, STRAYING if regions.strays(source) else None)
    if isinstance(source, MergedMask):
        return _merge(source)
    if isinstance(source, IndexedMask):
        return _read_indexed(source)
    if source.suffix.lower() in ARRAY_SUFFIXES:
        return _read_values(_from_numpy(source), source)
    with open_image(source) as image:
        image.load()  # some formats have their orientation after the pixels
        turned = orientation_of(image) != 1
        values, remark = _from_image(
            ImageOps.exif_transpose(image) if turned else image
        )  # exif_transpose copies in any case
        is_jpeg = image.format in ("JPEG", "MPO")
    reading = _threshold_jpeg(values) if is_jpeg else _read_values(values, source)
    return MaskReading(reading.mask, reading.kind, remark or reading.remark, turned)


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask, bool (H, W), to `size` (h, w): a pixel is foreground if at least half of its area was."""
    if mask.shape == size:
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.5


def _from_numpy(path: Path) -> NDArray[Any]:
    loaded = read_array(path)
    values = loaded
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):  # (1, H, W), (H, W, 1)
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or values.size == 0:
        raise DatasetError(
            f"{path} is an array of shape {str(loaded.shape)[:80]} and type {loaded.dtype}: a mask is one (H, W) array "
            "of numbers"
        )
    return values


def _merge(source: MergedMask) -> MaskReading:
    """Merge several mask files to their union."""
    if not source.files:
        return MaskReading(np.zeros_like(read_mask(source.others[0]).mask), "a file for each class, of others")
    first = read_mask(source.files[0])
    merged, remark, turned = first.mask, first.remark, first.turned
    for path in source.files[1:]:
        reading = read_mask(path)
        if merged.shape != reading.mask.shape:
            sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (merged.shape, reading.mask.shape))
            raise DatasetError(f"{source} are {sizes}: masks of one image must have the same size")
        merged = merged | reading.mask
        remark, turned = remark or reading.remark, turned or reading.turned
    return MaskReading(merged, "several files, merged", remark, turned)


def _read_indexed(source: IndexedMask) -> MaskReading:
    """Read a mask by the values of its classes: gray levels, or indices of a palette."""
    with open_image(source.file) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise DatasetError(f"{source.file} is a color image: the label of a class is a gray level; save it as gray")
        values = np.asarray(image)
    return MaskReading(np.isin(values, [number for _, several in source.values for number in several]), "labels")


def _from_image(image: Image.Image) -> tuple[NDArray[Any], str | None]:
    """Return one value per pixel, as the file stores it, and a remark."""
    if image.mode == "P" and not image.has_transparency_data:
        return _from_palette(image)
    if image.has_transparency_data and image.mode not in ("L", "I", "F", "1"):
        return _from_transparent(image.convert("RGBA")), None
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return np.asarray(image), None
    return _brightness(image), None


def _from_palette(image: Image.Image) -> tuple[NDArray[Any], str | None]:
    """Return the brightness of each pixel's color, or its palette index if no color is black, and a remark."""
    indices, colors = np.asarray(image), np.asarray(image.convert("RGB"))
    used, first = np.unique(indices, return_index=True)
    shown = colors.reshape(-1, 3)[first]
    if len(np.unique(shown, axis=0)) < len(used):
        return indices, "with one color for several indices of the palette: index 0 was read as background"
    is_gray = (shown == shown[:, :1]).all()
    if is_gray or not shown.any(axis=1).all():
        return _brightness(image), None
    return indices, "with a palette without black: index 0 was read as background"


def _brightness(image: Image.Image) -> NDArray[np.uint8]:
    """Return the maximum of red, green and blue, uint8 (H, W): any color is brighter than black."""
    red, green, blue = image.convert("RGB").split()
    return np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))


def _from_transparent(rgba: Image.Image) -> NDArray[np.uint8]:
    """Read transparent pixels as background. If an image is all black, its alpha channel is the mask."""
    values, alpha = _brightness(rgba), np.asarray(rgba.getchannel("A"))
    if alpha.min() == alpha.max() == 255:
        return values
    if values.max() == 0 and alpha.min() != alpha.max():
        return alpha
    return (values.astype(np.uint16) * alpha // 255).astype(np.uint8)


def _threshold_jpeg(values: NDArray[Any]) -> MaskReading:
    """Threshold a JPEG mask, which has no exact values; {0, 1} is read as it is, since a threshold would empty it."""
    remark = None
    if values.max() <= 1:
        if values.any():
            remark = "of the values 0 and 1 as JPEG, which does not keep them; save masks as PNG"
        return MaskReading(values > 0, "two values", remark)
    if CLEAR * 255 < values.max() <= MASK_THRESHOLD:
        remark = (
            f"as JPEG with gray but nothing above {MASK_THRESHOLD}, read as empty; save masks as PNG with 0 and 255"
        )
    elif _unclear_share(values, 255) > UNCLEAR_SHARE:
        remark = f"as JPEG with much gray, thresholded at {MASK_THRESHOLD}; save masks as PNG with 0 and 255"
    return MaskReading(values > MASK_THRESHOLD, "gray levels", remark)


def _read_values(values: NDArray[Any], path: Path) -> MaskReading:
    """Read a mask whose file keeps exact values."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DatasetError(f"{path} contains NaN or infinite values: a mask is finite, 0 for background")
    if values.min() < 0:
        raise DatasetError(f"{path} contains values below 0, such as {values.min()}: a mask has 0 for background")
    different = _distinct(values)
    top = float(different[-1])  # a Python number, which does not overflow as uint16 does
    if len(different) == 1 or (len(different) == 2 and different[0] == 0):
        return MaskReading(values > 0, "two values")
    if values.dtype.kind == "f" and top <= 1:
        return MaskReading(values >= 0.5, "probabilities")
    remark = None
    if len(different) == 2 and top > MASK_THRESHOLD and 2 * float(different[0]) <= top:
        remark = "of two values that are both above 0: the lower one was read as background"
        return MaskReading(values > different[0], "two values", remark)
    if _are_labels(values, different):
        if different[0] > 0:
            remark = "without a pixel of 0, the background, read as full; subtract the background's value"
        elif top >= 128 and len(different) <= FEW_VALUES and values.dtype.itemsize == 1:
            remark = "of several gray levels in flat areas: all above 0 was read as foreground"
        return MaskReading(values > 0, "labels", remark)
    if different[0] > CLEAR * top or _unclear_share(values, top) > UNCLEAR_SHARE:
        remark = "with much gray, thresholded at half the largest value; save masks with two values"
    return MaskReading(values > top / 2, "gray levels", remark)


def _distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values that occur, in order; bytes are counted in blocks, since counting needs 8 bytes per pixel."""
    if values.dtype == np.uint8:
        flat, counts = values.reshape(-1), np.zeros(256, np.int64)
        for start in range(0, flat.size, COUNTED_AT_ONCE):
            counts += np.bincount(flat[start : start + COUNTED_AT_ONCE], minlength=256)
        return np.flatnonzero(counts)
    return np.unique(values)


def _are_labels(values: NDArray[Any], different: NDArray[Any]) -> bool:
    """Return whether gray levels are labels, which fill areas, and not noise or smooth edges of a region.

    Integers below 128 are labels, since nobody stores a region that dark. Otherwise the pixels between black and white
    decide: in labels, most of them are in areas of a single value.
    """
    top = float(different[-1])
    if top < 128 and (different == np.floor(different)).all():
        return True
    if len(different) <= FEW_VALUES:
        between = (values > 0) & (values < top)
    else:
        between = (values > CLEAR * top) & (values < (1 - CLEAR) * top)
    return bool(2 * (between & _flat(values)).sum() > between.sum())


def _flat(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the pixels in 2x2 squares of a single value."""
    corner = values[:-1, :-1]
    square = (corner == values[:-1, 1:]) & (corner == values[1:, :-1]) & (corner == values[1:, 1:])
    flat = np.zeros(values.shape, np.bool_)
    for y in (slice(None, -1), slice(1, None)):
        for x in (slice(None, -1), slice(1, None)):
            flat[y, x] |= square
    return flat


def _unclear_share(values: NDArray[Any], top: float) -> float:
    """Return the share of gray among the pixels that are not black."""
    not_black = values > CLEAR * top
    gray = not_black & (values < (1 - CLEAR) * top)
    return float(gray.sum() / max(not_black.sum(), 1))
