"""Large images in overlapping tiles: where the tiles are, and how their logits become one map.

Like any image, a tile is squashed to the network's size; that happens elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import OptionError
from condseg_sdk.preprocessing import resize_logits

__all__ = ["Tile", "merge", "plan_tiles"]


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image: rows top to top + height, columns left to left + width.

    Args:
        top: First row in pixels.
        left: First column in pixels.
        height: Height in pixels.
        width: Width in pixels.

    Example:
        >>> import numpy as np
        >>> Tile(top=10, left=0, height=20, width=30).crop(np.zeros((100, 100, 3), np.uint8)).shape
        (20, 30, 3)
    """

    top: int
    left: int
    height: int
    width: int

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tile's part of an image (H, W, ...), contiguous."""
        return np.ascontiguousarray(image[self.top : self.top + self.height, self.left : self.left + self.width])


def plan_tiles(size: tuple[int, int], *, tile: int, overlap: float = 0.25) -> list[Tile]:
    """Cover an image with square tiles, row by row.

    Args:
        size: The image's (height, width) in pixels.
        tile: Side of a tile in pixels. Tiles are shorter where a side of the image is shorter.
        overlap: Share of a tile that the next one covers, too, in [0, 1). The last tile of a row or column is shifted
            inward and overlaps more.

    Returns:
        The tiles, from left to right and from top to bottom.

    Raises:
        OptionError: `tile` is below 1 or `overlap` outside [0, 1).

    Example:
        >>> [(t.top, t.left) for t in plan_tiles((100, 250), tile=100, overlap=0)]
        [(0, 0), (0, 100), (0, 150)]
    """
    if tile < 1:
        raise OptionError(f"tile={tile!r} must be a side in pixels, at least 1", option="tile")
    if not 0 <= overlap < 1:
        raise OptionError(f"overlap={overlap!r} must lie in [0, 1), such as 0.25", option="overlap")
    step = max(1, round(tile * (1 - overlap)))
    height, width = min(tile, size[0]), min(tile, size[1])
    return [
        Tile(top, left, height, width)
        for top in _starts(size[0], height, step)
        for left in _starts(size[1], width, step)
    ]


def merge(
    tiles: Sequence[Tile], logits: Iterable[NDArray[np.float32]], *, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Blend the tiles' logits, each of which has its largest weight at its center.

    The weights are Gaussian, with a standard deviation of an eighth of the tile's sides (as in nnU-Net and
    MONAI), so that the edges of a tile, where the network sees little of the surroundings, hardly count where another
    tile covers them.

    Args:
        tiles: Tiles that cover the image, from `plan_tiles`.
        logits: Logits of each tile, float32 (h, w), of the network's size or the tile's. They are consumed one at a
            time.
        size: The image's (height, width) in pixels.

    Returns:
        Logits of the image, float32 (height, width).

    Example:
        >>> import numpy as np
        >>> tiles = plan_tiles((64, 96), tile=64)
        >>> merge(tiles, [np.zeros((16, 16), np.float32) for _ in tiles], size=(64, 96)).shape
        (64, 96)
    """
    total, weights = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for tile, tile_logits in zip(tiles, logits, strict=True):
        weight = np.outer(_gaussian(tile.height), _gaussian(tile.width))
        window = np.s_[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        total[window] += weight * resize_logits(tile_logits, (tile.height, tile.width))
        weights[window] += weight
    return total / weights


def _starts(length: int, tile: int, step: int) -> list[int]:
    """Return where the tiles along a side begin."""
    return [*range(0, length - tile, step), length - tile]


def _gaussian(length: int) -> NDArray[np.float32]:
    """Compute the weights along a side; they fall to 0.0003 at its ends, so a product of two stays above 0."""
    position = (np.arange(length, dtype=np.float32) + 0.5) / length - 0.5
    return np.exp(-0.5 * (position / 0.125) ** 2)
