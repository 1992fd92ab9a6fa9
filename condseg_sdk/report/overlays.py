"""Draws which pixels of a prediction are right and wrong, each kind in its own color."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.opencv import cv2

__all__ = ["ERROR_COLORS", "error_overlay"]

# Far from each other and from tissue, also in brightness for people with color vision deficiency.
ERROR_COLORS = {"found": (64, 224, 208), "too much": (255, 190, 0), "missed": (214, 40, 200)}
"""RGB colors of true positive, false positive and false negative pixels."""

TINT = {"found": 0.25, "too much": 0.6, "missed": 0.6}
SIDE = 560  # largest length of the longer side in pixels


def error_overlay(image: NDArray[np.uint8], prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> Image.Image:
    """Color an image by right and wrong pixels, with the outline of the ground truth in white.

    Args:
        image: Image, RGB uint8 (H, W, 3).
        prediction: Predicted mask, bool (H, W).
        target: Ground truth, bool (H, W).

    Returns:
        An RGB image, resized to a longer side of 560 pixels if it is larger.

    Example:
        >>> mask = np.ones((90, 120), bool)
        >>> error_overlay(np.zeros((90, 120, 3), np.uint8), mask, mask).size
        (120, 90)
    """
    scale = min(1.0, SIDE / max(image.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    drawn = np.array(Image.fromarray(image).resize((width, height)), np.float32)
    kinds = {"found": prediction & target, "too much": prediction & ~target, "missed": target & ~prediction}
    for kind, pixels in kinds.items():
        cover = TINT[kind] * np.array(
            cv2.resize(pixels.astype(np.float32), (width, height), None, 0, 0, cv2.INTER_AREA)
        )
        drawn += cover[..., None] * (np.array(ERROR_COLORS[kind], np.float32) - drawn)
    small_target = cv2.resize(target.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(small_target, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    picture = np.rint(drawn).astype(np.uint8)
    cv2.drawContours(picture, outlines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return Image.fromarray(picture)
