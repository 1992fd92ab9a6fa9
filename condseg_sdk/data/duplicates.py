"""Finds near-duplicate images: a perceptual hash and a thumbnail of each image, compared across splits.

The hash is dHash at 16x16 (whether each cell is brighter than its left neighbor), three lines with OpenCV: the package
for it, imagehash, depends on SciPy and PyWavelets for its other hashes. A small distance alone is not enough where all
images look alike, such as lesions in the middle of skin; the thumbnails must correlate as well. On Kvasir-SEG, GlaS and
ISIC-2017 the limits find images that were saved again, recolored or slightly moved, and no two different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.opencv import cv2

__all__ = ["Fingerprint", "fingerprint", "near_duplicates"]

MAX_DISTANCE = 40  # number of differing bits out of 256; unrelated images differ in about 128
MIN_CORRELATION = 0.96
BLOCK = 1024  # rows compared at once, to limit memory


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint by which an image is recognized.

    Attributes:
        bits: Difference hash, bool (256,).
        thumbnail: Gray values of a 32x32 thumbnail, uint8 (1024,).
    """

    bits: NDArray[np.bool_]
    thumbnail: NDArray[np.uint8]

    @property
    def is_blank(self) -> bool:
        """Whether the image has a single color, and so resembles every other such image."""
        return bool(self.thumbnail.max() - self.thumbnail.min() <= 2)


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint:
    """Compute the fingerprint of gray values, uint8 (H, W)."""
    cells = cv2.resize(gray, (17, 16), interpolation=cv2.INTER_AREA)
    thumbnail = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA)
    return Fingerprint((cells[:, 1:] > cells[:, :-1]).ravel(), np.asarray(thumbnail, np.uint8).ravel())


def near_duplicates(first: Sequence[Fingerprint], second: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Find the pairs (i, j) for which first[i] and second[j] show the same image, for each j the nearest i.

    Every image is compared with every other in matrix products of blocks, so that neither time nor memory depends
    on how many are alike.
    """
    nearest = np.zeros(len(second), np.intp)
    greatest = np.full(len(second), -1.0, np.float32)
    for start in range(0, len(first), BLOCK):
        signs, rows = _signs(first[start : start + BLOCK]), _standardized(first[start : start + BLOCK])
        for begin in range(0, len(second), BLOCK):
            block = second[begin : begin + BLOCK]
            are_close = (256 - signs @ _signs(block).T) / 2 <= MAX_DISTANCE
            are_close[:, [other.is_blank for other in block]] = False
            if are_close.any():
                correlations = np.where(are_close, rows @ _standardized(block).T, np.float32(-1))
                best = correlations.argmax(axis=0)
                values = correlations[best, np.arange(len(block))]
                here = slice(begin, begin + len(block))
                is_greater = values > greatest[here]
                nearest[here] = np.where(is_greater, start + best, nearest[here])
                greatest[here] = np.maximum(values, greatest[here])
    return [(int(nearest[j]), j) for j in range(len(second)) if greatest[j] >= MIN_CORRELATION]


def _signs(prints: Sequence[Fingerprint]) -> NDArray[np.float32]:
    return np.stack([f.bits for f in prints]).astype(np.float32) * 2 - 1


def _standardized(prints: Sequence[Fingerprint]) -> NDArray[np.float32]:
    """Scale thumbnails (n, 1024) so that their products are Pearson correlations; zeros for a constant one."""
    rows = np.stack([f.thumbnail for f in prints]).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))
