"""Pictures of what an answer got right and wrong, each kind of pixel in a color of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.opencv import cv2

__all__ = ["ERROR_COLORS", "error_overlay"]

# Far from each other, from tissue, and from each other's grays for people who see few colors.
ERROR_COLORS = {
    "found": (64, 224, 208),
    "too much": (255, 190, 0),
    "missed": (214, 40, 200),
}
"""Red, green, blue of true positive, false positive and false negative pixels."""

TINT = {"found": 0.25, "too much": 0.6, "missed": 0.6}
SIDE = 560  # of the picture's longer side in pixels, at most


def error_overlay(image: NDArray[np.uint8], answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Image.Image:
    """Color an image by what an answer got right and wrong, with the truth's outline in white.

    Args:
        image: uint8 (H, W, 3) RGB.
        answer, truth: bool (H, W).

    Returns:
        A PIL image, RGB, made smaller to a longer side of 560 pixels where the image is larger.
    """
    scale = min(1.0, SIDE / max(image.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    drawn = np.array(Image.fromarray(image).resize((width, height)), np.float32)
    kinds = {"found": answer & truth, "too much": answer & ~truth, "missed": truth & ~answer}
    for kind, pixels in kinds.items():
        cover = TINT[kind] * np.array(
            cv2.resize(pixels.astype(np.float32), (width, height), None, 0, 0, cv2.INTER_AREA)
        )
        drawn += cover[..., None] * (np.array(ERROR_COLORS[kind], np.float32) - drawn)
    small_truth = cv2.resize(truth.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(small_truth, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    picture = np.rint(drawn).astype(np.uint8)
    cv2.drawContours(picture, outlines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return Image.fromarray(picture)
