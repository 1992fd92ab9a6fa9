"""The same picture twice: a perceptual hash and a thumbnail of each image, compared across the parts of a set.

The hash is dHash at 16x16 (is each cell brighter than its left neighbour?), three lines on OpenCV: the package that has
it, imagehash, brings SciPy and PyWavelets for its other hashes. A small distance alone is not enough where images look
alike, such as one lesion in the middle of skin; that the thumbnails correlate, too, is. Tried on Kvasir-SEG, GlaS and
ISIC-2017: the limits find re-saved, recolored and slightly moved pictures, and no two different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.opencv import cv2

__all__ = ["Fingerprint", "fingerprint", "near_duplicates"]

MAX_DISTANCE = 40  # of 256 bits; images that have nothing in common differ in about 128
MIN_CORRELATION = 0.96
BLOCK = 512  # rows compared at once, which bounds the memory


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to recognise it.

    Attributes:
        bits: bool (256,).
        thumbnail: uint8 (1024,), 32x32 gray values.
    """

    bits: NDArray[np.bool_]
    thumbnail: NDArray[np.uint8]

    @property
    def is_blank(self) -> bool:
        """Whether the image is of one colour, which is like any other such image."""
        return bool(self.thumbnail.max() - self.thumbnail.min() <= 2)


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint:
    """Fingerprint of gray values uint8 (H, W)."""
    cells = cv2.resize(gray, (17, 16), interpolation=cv2.INTER_AREA)
    thumbnail = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA)
    return Fingerprint((cells[:, 1:] > cells[:, :-1]).ravel(), np.asarray(thumbnail, np.uint8).ravel())


def near_duplicates(first: Sequence[Fingerprint], second: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Pairs (i, j) in which first[i] and second[j] show the same picture, for each j the nearest i."""
    if not first or not second:
        return []
    left, thumbnails = _signs(first), np.stack([f.thumbnail for f in first])
    found = []
    for start in range(0, len(second), BLOCK):
        block = second[start : start + BLOCK]
        distances = (256 - left @ _signs(block).T) / 2
        for j, other in enumerate(block):
            close = np.flatnonzero(distances[:, j] <= MAX_DISTANCE)
            if len(close) and not other.is_blank:
                correlations = _correlations(thumbnails[close], other.thumbnail)
                best = int(np.argmax(correlations))
                if correlations[best] >= MIN_CORRELATION:
                    found.append((int(close[best]), start + j))
    return found


def _signs(prints: Sequence[Fingerprint]) -> NDArray[np.float32]:
    return np.stack([f.bits for f in prints]).astype(np.float32) * 2 - 1


def _correlations(thumbnails: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pearson's coefficient of each row (n, 1024) with one thumbnail; 0 for a row of one value."""
    rows = thumbnails - thumbnails.mean(axis=1, keepdims=True, dtype=np.float32)
    row = other - other.mean(dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(row)
    return np.asarray(rows @ row / np.maximum(lengths, 1e-6), np.float32)
