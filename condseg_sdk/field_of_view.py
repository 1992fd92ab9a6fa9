"""The rectangle that the endoscopic view fills in a recorded frame.

Recorders put a second view, guide boxes, text and black margins beside the endoscopic view. There is no tissue outside
of it, but a network that was trained on tissue marks regions there. `find_field_of_view` finds the view in one image
without any knowledge of the recorder; `FieldOfViewTracker` keeps it steady over the frames of a video.

A rectangle that is too large is better than one that is too small: an image is cropped only where the color of the
margin is constant, which the color of tissue never is. Where nothing certain is found, the whole image is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.opencv import cv2

__all__ = ["Box", "FieldOfView", "FieldOfViewTracker", "FloatBox", "crop", "find_field_of_view", "scale_box"]

FieldOfView = Literal["none", "endoscopy"]
"""What images are cropped to: "none" uses the whole image, "endoscopy" the endoscopic view."""

Box: TypeAlias = tuple[int, int, int, int]
"""A rectangle x0, y0, x1, y1 in pixels, x1 and y1 exclusive."""

FloatBox: TypeAlias = tuple[float, float, float, float]
"""A rectangle whose edges may be inside of pixels."""

Pixel = TypeVar("Pixel", bound=np.generic)

SIDE = 256  # longer side of the small copy of the image, on which the search runs
MIN_SIDE = 32  # side of the small copy; a smaller one shows too little of a margin
RING = 3  # distance from the image's edge at which colors are read, since many recorders draw a thin line at the edge
MAX_COLORS = 3  # number of colors of margins in one image
MIN_SHARE = 0.06  # share of the ring; a color that fills less is not worth cropping
COLORED_MIN_SHARE = 0.25  # the same for a margin that is not black, since overexposed tissue is constant, too
BLACK = 40  # largest value of a channel that counts as black
GRAY = 8  # largest difference between the channels of a color that counts as black
TOLERANCE = 4  # distance of the margin's pixels from its color, in addition to three times the noise
MAX_NOISE = 5.0  # noise of a margin
SECOND_VIEW = 0.5  # side of a second view, as a share of the main one's radius, up to which it counts as separate
NECK = 0.2  # parts joined by a neck wider than this share of the main one's diameter belong together
SIMILAR = 0.4  # parts of at least this share of the main one's area are views, too
DIM = 80  # mean of the brightest channel up to which a part may be the same view behind a shadow
THICK = 4  # radius of such a part in pixels of the small copy: thicker than text
MAX_ASPECT = 1.35  # width to height of an endoscopic view with the parts that are joined to it
MIN_STEP, COLORED_MIN_STEP = 12, 25  # difference from the margin's color at the edge of the view
MIN_STEPS, COLORED_MIN_STEPS = 0.6, 0.7  # share of the border with this step; an endoscope's light fades slower
MIN_CUT = 0.01  # share of a side; smaller margins are not cropped
MIN_AREA, MAX_AREA = 0.2, 0.98  # share of the image; outside this range the whole image is used


@dataclass(frozen=True)
class _Margin:
    """A constant color that fills a part of the image's edge.

    Attributes:
        color: RGB color.
        share: Share of the ring that has the color.
        noise: Root mean square of the pixels' distance from the color.
        is_black: Whether the color is nearly black.
    """

    color: NDArray[np.float64]
    share: float
    noise: float
    is_black: bool


def find_field_of_view(image: NDArray[np.uint8]) -> Box | None:
    """Find the rectangle around the endoscopic view in an image.

    Args:
        image: Image, uint8 RGB (H, W, 3).

    Returns:
        The rectangle, or None where the whole image is to be used: there is no margin, the margin has less than 2 % of
        the area, or nothing certain was found.

    Example:
        >>> frame = np.zeros((480, 640, 3), np.uint8)
        >>> frame[40:440, 200:600] = np.random.default_rng(0).integers(60, 255, (400, 400, 3))
        >>> x0, y0, x1, y1 = find_field_of_view(frame)
        >>> max(abs(x0 - 200), abs(y0 - 40), abs(x1 - 600), abs(y1 - 440)) <= 5
        True
    """
    height, width = image.shape[:2]
    small = _shrink(image)
    rows, columns = small.shape[:2]
    left, top, right, bottom = 0, 0, columns, rows
    for _ in range(2):  # twice, for a margin within a margin, such as that of a window
        part = _find(small[top:bottom, left:right])
        if part is None:
            break
        left, top, right, bottom = left + part[0], top + part[1], left + part[2], top + part[3]
    area = (right - left) * (bottom - top) / (rows * columns)
    if not MIN_AREA <= area <= MAX_AREA:
        return None
    # Integer arithmetic: a rounded quotient might lie beyond the image.
    return left * width // columns, top * height // rows, -(-right * width // columns), -(-bottom * height // rows)


def crop(pixels: NDArray[Pixel], box: Box | None) -> NDArray[Pixel]:
    """Return the part of an image or a mask (H, W, ...) in the rectangle, contiguous; the whole image for None."""
    if box is None:
        return pixels
    left, top, right, bottom = box
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def scale_box(box: Box | FloatBox | None, size: tuple[int, int], other: tuple[int, int]) -> FloatBox | None:
    """Scale a rectangle from an image of `size` (height, width) to the same image of another size; None stays None."""
    if box is None:
        return None
    x, y = other[1] / size[1], other[0] / size[0]
    # min: a rounded product may lie beyond the side
    return box[0] * x, box[1] * y, min(box[2] * x, other[1]), min(box[3] * y, other[0])


class FieldOfViewTracker:
    """Field of view over the frames of a video, which stays the same until another one is certain.

    A frame whose view cannot be found (too dark, overexposed) keeps the previous rectangle. Rectangles that differ by
    less than 2 % of the image's sides count as the same. Another one is used once it has been found in `patience`
    consecutive frames. Most frames of a video therefore get exactly the rectangle that they would get as separate
    images.

    Args:
        patience: Number of consecutive frames after which a different field of view is used.

    Example:
        >>> frame = np.zeros((480, 640, 3), np.uint8)
        >>> frame[40:440, 200:600] = np.random.default_rng(0).integers(60, 255, (400, 400, 3))
        >>> track = FieldOfViewTracker()
        >>> track(frame) == track(np.zeros_like(frame)) == find_field_of_view(frame)
        True
    """

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self._size: tuple[int, int] | None = None
        self._box: Box | None = None
        self._new: Box | None = None
        self._seen = 0

    def __call__(self, image: NDArray[np.uint8]) -> Box | None:
        """Return the rectangle of the next frame, uint8 RGB (H, W, 3), or None for the whole frame."""
        size = (image.shape[0], image.shape[1])
        found = find_field_of_view(image)
        if size != self._size:  # another video, or the first frame
            self._size, self._box, self._new, self._seen = size, found, None, 0
        elif found is None or self._same(found, self._box):
            self._new, self._seen = None, 0
        elif self._box is None:
            self._box = found
        else:
            self._seen = self._seen + 1 if self._same(found, self._new) else 1
            self._new = found
            if self._seen >= self.patience:
                self._box, self._new, self._seen = found, None, 0
        return self._box

    def _same(self, one: Box, other: Box | None) -> bool:
        if other is None or self._size is None:
            return False
        height, width = self._size
        limits = (width / 50, height / 50) * 2
        return all(abs(a - b) <= limit for a, b, limit in zip(one, other, limits, strict=True))


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy whose longer side is at most `SIDE`."""
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer <= SIDE:
        return image
    every = max(1, longer // (2 * SIDE))  # averaging all pixels of a large image would take longer than all the rest
    size = (max(1, round(width * SIDE / longer)), max(1, round(height * SIDE / longer)))
    pixels = np.ascontiguousarray(image[::every, ::every])
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _find(image: NDArray[np.uint8]) -> Box | None:
    """Find the rectangle in a small image; sides with little to crop are kept, and None means nothing is cropped."""
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        return None
    image = np.ascontiguousarray(image)
    margins = _margins(image)
    if not margins:
        return None
    content = _content(image, margins)
    if not _ends_sharply(image, content, margins):
        return None
    view, others = _main_view(content)
    if view is None:
        return None
    left, top, right, bottom = _with_dim_parts(_bounds(view), others, image)
    left, top = (0 if a < MIN_CUT * side else a for a, side in ((left, width), (top, height)))
    right, bottom = (side if side - b < MIN_CUT * side else b for b, side in ((right, width), (bottom, height)))
    return None if (left, top, right, bottom) == (0, 0, width, height) else (left, top, right, bottom)


def _ring(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the pixels at distance `RING` from the edge."""
    inner = values[RING:-RING, RING:-RING]
    return np.concatenate([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]])


def _margins(image: NDArray[np.uint8]) -> list[_Margin]:
    """Find the constant colors of the image's edge; the colors of tissue vary, even where it is very dark or bright."""
    ring = _ring(image).astype(np.int16)
    smooth = _ring(cv2.blur(image, (5, 5))).astype(np.int16)  # without the noise of JPEG
    found: list[_Margin] = []
    count = len(ring)
    for _ in range(MAX_COLORS):
        if len(ring) < MIN_SHARE * count:
            break
        color = _densest(smooth)
        distance = np.abs(smooth - color).max(1)
        same = distance <= 2
        share = float(same.sum() / count)
        if share < MIN_SHARE:
            break
        noise = math.sqrt(np.mean((ring[same] - color) ** 2))
        is_black = bool(color.max() <= BLACK and np.ptp(color) <= GRAY)
        if is_black:  # dark tissue, which is not constant, may be near
            certain = same.sum() >= 0.65 * (distance <= 5).sum() and (not found or noise <= 1)
        else:
            certain = same.sum() >= 0.9 * (distance <= 10).sum() and share >= COLORED_MIN_SHARE
        if certain and noise <= MAX_NOISE:
            found.append(_Margin(color, share, noise, is_black))
        rest = distance > 10
        ring, smooth = ring[rest], smooth[rest]
    return found


def _densest(colors: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the color that most of the colors (N, 3) are close to."""
    cells = ((colors + 2) >> 2).astype(np.int32)
    keys = (cells[:, 0] << 14) | (cells[:, 1] << 7) | cells[:, 2]
    values, counts = np.unique(keys, return_counts=True)
    color = np.median(colors[keys == values[counts.argmax()]], axis=0)
    return np.asarray(np.median(colors[np.abs(colors - color).max(1) <= 4], axis=0), np.float64)


def _content(image: NDArray[np.uint8], margins: list[_Margin]) -> NDArray[np.bool_]:
    """Return the pixels that are not margin, bool (h, w): of another color, or not connected to the image's edge."""
    matches = np.zeros(image.shape[:2], np.uint8)
    for margin in margins:
        reach = TOLERANCE + 3 * margin.noise
        low, high = (np.clip(margin.color + sign * reach, 0, 255) for sign in (-1, 1))
        matches |= np.asarray(cv2.inRange(image, low, high), np.uint8)
    count, labels = cv2.connectedComponents(matches, connectivity=4)
    is_content = np.ones(count, bool)
    is_content[_ring(labels)] = False
    is_content[0] = True
    return is_content[labels]


def _ends_sharply(image: NDArray[np.uint8], content: NDArray[np.bool_], margins: list[_Margin]) -> bool:
    """Return whether colors change at the margin's border within a few pixels, as at the edge of a view.

    If the "margin" is only dark or overexposed tissue, colors change slowly.
    """
    depth = cv2.distanceTransform(content.astype(np.uint8), cv2.DIST_L2, 5)  # from the margin, not the image's edge
    inside = image[(depth > 2.5) & (depth <= 4.5)].astype(np.int16)
    if not len(inside):
        return False
    nearest = np.min([np.abs(inside - margin.color).max(1) for margin in margins], axis=0)
    if all(margin.is_black for margin in margins):
        return bool((nearest >= MIN_STEP).mean() >= MIN_STEPS)
    return bool((nearest >= COLORED_MIN_STEP).mean() >= COLORED_MIN_STEPS)


def _main_view(content: NDArray[np.bool_]) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_]]:
    """Return the largest roundish part of the content, without text and small views beside it, and the rest."""
    padded = np.pad(content, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    radius = float(depth.max())
    if radius < MIN_SIDE / 6:
        return None, content
    core = depth >= SECOND_VIEW * radius
    count, labels = cv2.connectedComponents((depth >= NECK * radius).astype(np.uint8), connectivity=8)
    areas = np.bincount(labels[core], minlength=count)
    core &= (areas >= SIMILAR * areas.max())[labels]
    # A morphological opening with a disk: circles, octagons and rectangles keep their width and height.
    view = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5) < SECOND_VIEW * radius
    view = view[1:-1, 1:-1]
    return view, content & ~view


def _bounds(mask: NDArray[np.bool_]) -> Box:
    """Return the bounding box of a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _with_dim_parts(box: Box, others: NDArray[np.bool_], image: NDArray[np.uint8]) -> Box:
    """Add dim parts beside the box: the same view, behind a shadow that is as black as the margin."""
    thick = cv2.distanceTransform(np.pad(others, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1] >= THICK
    count, labels = cv2.connectedComponents(thick.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        part = labels == number
        if image[part].max(1).mean() > DIM:
            continue
        left, top, right, bottom = _bounds(part)
        wider = (
            min(box[0], left - THICK),
            min(box[1], top - THICK),
            max(box[2], right + THICK),
            max(box[3], bottom + THICK),
        )
        width, height = wider[2] - wider[0], wider[3] - wider[1]
        if 1 / MAX_ASPECT <= width / height <= MAX_ASPECT:
            box = wider
    height, width = image.shape[:2]
    return max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
