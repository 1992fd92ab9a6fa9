"""Reads sizes of images and masks from headers, and compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from condseg_sdk.images.files import open_image, orientation_of

__all__ = ["Size", "image_size", "size_agreement"]

Size: TypeAlias = tuple[int, int]
"""(height, width)"""


def image_size(path: Path) -> Size:
    """Return an image file's (height, width), upright, from its header.

    Raises:
        ImageError: The file cannot be read.
    """
    with open_image(path) as image:
        return image.size if orientation_of(image) >= 5 else (image.size[1], image.size[0])


def size_agreement(image: Size, mask: Size) -> Literal["same", "scaled", "different"]:
    """Compare the sizes of an image and its mask.

    Args:
        image: (height, width) of the image.
        mask: (height, width) of the mask.

    Returns:
        "same"; "scaled" for the same proportions, to the pixel, at another scale; otherwise "different".
    """
    if image == mask:
        return "same"
    height, width = image
    proportional = abs(mask[0] - mask[1] * height / width) <= 1 or abs(mask[1] - mask[0] * width / height) <= 1
    return "scaled" if proportional else "different"
