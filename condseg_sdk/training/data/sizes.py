"""Sizes of images and masks: read from headers, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from condseg_sdk.images import open_image

__all__ = ["EXIF_ORIENTATION", "Size", "image_size", "size_agreement"]

EXIF_ORIENTATION = 0x0112

Size: TypeAlias = tuple[int, int]
"""(height, width)"""


def image_size(path: Path) -> Size:
    """Return an image file's (height, width), upright, from its header.

    Raises:
        ImageError: The file cannot be read.
    """
    with open_image(path) as image:
        turned = int(image.getexif().get(EXIF_ORIENTATION, 1)) >= 5
        return image.size if turned else (image.size[1], image.size[0])


def size_agreement(image: Size, mask: Size) -> Literal["same", "scaled", "different"]:
    """Whether a mask fits its image: of one size, the same picture at another scale (to the pixel), or neither.

    Args:
        image: (height, width).
        mask: (height, width).
    """
    if image == mask:
        return "same"
    height, width = image
    proportional = abs(mask[0] - mask[1] * height / width) <= 1 or abs(mask[1] - mask[0] * width / height) <= 1
    return "scaled" if proportional else "different"
