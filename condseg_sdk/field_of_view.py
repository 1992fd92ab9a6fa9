"""The rectangle that the endoscope's picture fills in a recorded frame.

Recorders put a second picture, guide boxes, text and black margins beside the endoscope's picture. What lies outside of
it is no tissue, but a network trained on tissue marks regions there. `find_field_of_view` finds the picture in one
image, without any knowledge of the recorder; `FieldOfViewTracker` keeps it steady over the frames of a video.

Rather too large than too small: an image is cut only where the color of the margin is constant, as tissue never is, and
where little enough or nothing is found the whole image stays.
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

"""What a checkpoint's images are looked through for: nothing, or the picture of an endoscope."""

Box: TypeAlias = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, x1 and y1 exclusive."""

FloatBox: TypeAlias = tuple[float, float, float, float]
"""The same, with edges between the pixels' as well."""

Pixel = TypeVar("Pixel", bound=np.generic)

SIDE = 256  # the longer side of the small copy of the image in which everything is looked for
SMALLEST_SIDE = 32  # of the small copy: what is smaller shows too little of a margin
RING = 3  # distance from the image's edge at which colors are read: many recorders draw a thin line at the edge itself
COLORS = 3  # margins of different colors in one image
SHARE = 0.06  # of the ring: a color that fills less is no margin that would be worth cutting
COLORED_SHARE = 0.25  # the same for a margin that is not black, since overexposed tissue is constant, too
BLACK = 40  # the greatest value of a channel that counts as black, and
GRAY = 8  # the greatest difference between the channels
TOLERANCE = 4  # how far a pixel of the margin is from its color, beside three times the noise
LOUDEST_NOISE = 5.0
SECOND_PICTURE = 0.5  # sides of a second picture, as a share of the main one's radius, above which it is not told apart
NECK = 0.2  # parts that are joined by a neck wider than this share of the main one's diameter belong together
SIMILAR = 0.4  # parts of this share of the main one's area are pictures in their own right
DIM = 80  # mean of the brightest channel below which a part may be the same picture with a shadow between
THICK = 4  # radius in small pixels of such a part: thicker than text
WIDEST = 1.35  # width to height of an endoscope's picture, as far as parts are joined to it
STEP, COLORED_STEP = 12, 25  # least difference from the margin's color right inside the picture, and
STEPS, COLORED_STEPS = 0.6, 0.7  # along which share of the border: the light of an endoscope fades away slower
LEAST_CUT = 0.01  # of a side: less is not cut
LEAST_AREA, MOST_AREA = 0.2, 0.98  # of the image: outside of them the whole image stays


@dataclass(frozen=True)
class _Margin:
    """A color that fills a part of the image's edge.

    Attributes:
        color: RGB.
        share: Share of the ring.
        noise: Root mean square of the pixels' distance from the color.
        is_black: Whether it is nearly black.
    """

    color: NDArray[np.float64]
    share: float
    noise: float
    is_black: bool


def find_field_of_view(image: NDArray[np.uint8]) -> Box | None:
    """Find the rectangle around the endoscope's picture in an image.

    Args:
        image: uint8 RGB (H, W, 3).

    Returns:
        The rectangle, or None where the whole image is to be used: it has no margin, one of less than
        2 % of its area, or nothing that is certain.

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
    for _ in range(2):  # a second time for a margin within a margin, such as a window's
        part = _find(small[top:bottom, left:right])
        if part is None:
            break
        left, top, right, bottom = left + part[0], top + part[1], left + part[2], top + part[3]
    area = (right - left) * (bottom - top) / (rows * columns)
    if not LEAST_AREA <= area <= MOST_AREA:
        return None
    # Whole numbers: a quotient's last bit may round up beyond the image.
    return left * width // columns, top * height // rows, -(-right * width // columns), -(-bottom * height // rows)


def crop(pixels: NDArray[Pixel], box: Box | None) -> NDArray[Pixel]:
    """The rectangle's part of an image or a mask (H, W, ...), contiguous; all of it for None."""
    if box is None:
        return pixels
    left, top, right, bottom = box
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def scale_box(box: Box | FloatBox | None, size: tuple[int, int], other: tuple[int, int]) -> FloatBox | None:
    """The rectangle of an image of `size` (height, width) in the same image at another size; None stays None."""
    if box is None:
        return None
    x, y = other[1] / size[1], other[0] / size[0]
    # min: a product of rounded numbers may lie beyond the side by the last bit
    return box[0] * x, box[1] * y, min(box[2] * x, other[1]), min(box[3] * y, other[0])


class FieldOfViewTracker:
    """The field of view over the frames of a video, which stays where it is until another one is certain.

    A frame whose picture cannot be found (too dark, overexposed) keeps the one before; a rectangle that differs by less
    than a fiftieth of the image's sides is the same one; another is believed once it has been found in `patience`
    frames running. Most frames of a video therefore get exactly the rectangle that they would get as single images.

    Args:
        patience: Frames after which a different field of view is taken over.

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
        """The rectangle for the next frame, or None for the whole of it."""
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
    """A copy whose longer side is at most `SIDE`."""
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer <= SIDE:
        return image
    every = max(1, longer // (2 * SIDE))  # averages over large images take longer than all the rest
    size = (max(1, round(width * SIDE / longer)), max(1, round(height * SIDE / longer)))
    pixels = np.ascontiguousarray(image[::every, ::every])
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _find(image: NDArray[np.uint8]) -> Box | None:
    """The rectangle in a small image, whole sides where little would be cut, or None where nothing would."""
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        return None
    image = np.ascontiguousarray(image)
    margins = _margins(image)
    if not margins:
        return None
    content = _content(image, margins)
    if not _ends_sharply(image, content, margins):
        return None
    picture, others = _main_picture(content)
    if picture is None:
        return None
    left, top, right, bottom = _with_dim_parts(_bounds(picture), others, image)
    left, top = (0 if a < LEAST_CUT * side else a for a, side in ((left, width), (top, height)))
    right, bottom = (side if side - b < LEAST_CUT * side else b for b, side in ((right, width), (bottom, height)))
    return None if (left, top, right, bottom) == (0, 0, width, height) else (left, top, right, bottom)


def _ring(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The pixels at distance `RING` from the edge."""
    inner = values[RING:-RING, RING:-RING]
    return np.concatenate([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]])


def _margins(image: NDArray[np.uint8]) -> list[_Margin]:
    """The constant colors of the image's edge: tissue, however dark or bright, goes on to similar colors."""
    ring = _ring(image).astype(np.int16)
    smooth = _ring(cv2.blur(image, (5, 5))).astype(np.int16)  # without the noise of JPEG
    found: list[_Margin] = []
    count = len(ring)
    for _ in range(COLORS):
        if len(ring) < SHARE * count:
            break
        color = _densest(smooth)
        distance = np.abs(smooth - color).max(1)
        same = distance <= 2
        share = float(same.sum() / count)
        if share < SHARE:
            break
        noise = math.sqrt(np.mean((ring[same] - color) ** 2))
        is_black = bool(color.max() <= BLACK and np.ptp(color) <= GRAY)
        if is_black:  # dark tissue may be near, and is not constant
            certain = same.sum() >= 0.65 * (distance <= 5).sum() and (not found or noise <= 1)
        else:
            certain = same.sum() >= 0.9 * (distance <= 10).sum() and share >= COLORED_SHARE
        if certain and noise <= LOUDEST_NOISE:
            found.append(_Margin(color, share, noise, is_black))
        rest = distance > 10
        ring, smooth = ring[rest], smooth[rest]
    return found


def _densest(colors: NDArray[np.int16]) -> NDArray[np.float64]:
    """The color that most others (N, 3) are near to."""
    cells = ((colors + 2) >> 2).astype(np.int32)
    keys = (cells[:, 0] << 14) | (cells[:, 1] << 7) | cells[:, 2]
    values, counts = np.unique(keys, return_counts=True)
    color = np.median(colors[keys == values[counts.argmax()]], axis=0)
    return np.asarray(np.median(colors[np.abs(colors - color).max(1) <= 4], axis=0), np.float64)


def _content(image: NDArray[np.uint8], margins: list[_Margin]) -> NDArray[np.bool_]:
    """What is not of a margin's color, or not joined to the image's edge by it: bool (h, w)."""
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
    """Whether colors change at the margin's border within a few pixels, as at the edge of a picture.

    Where a margin is no more than tissue in the dark, or in too much light, colors change slowly.
    """
    depth = cv2.distanceTransform(content.astype(np.uint8), cv2.DIST_L2, 5)  # from the margin, not the image's edge
    inside = image[(depth > 2.5) & (depth <= 4.5)].astype(np.int16)
    if not len(inside):
        return False
    nearest = np.min([np.abs(inside - margin.color).max(1) for margin in margins], axis=0)
    if all(margin.is_black for margin in margins):
        return bool((nearest >= STEP).mean() >= STEPS)
    return bool((nearest >= COLORED_STEP).mean() >= COLORED_STEPS)


def _main_picture(content: NDArray[np.bool_]) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_]]:
    """The largest roundish part of the content, without text and small pictures beside it or at it, and the rest."""
    padded = np.pad(content, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    radius = float(depth.max())
    if radius < SMALLEST_SIDE / 6:
        return None, content
    core = depth >= SECOND_PICTURE * radius
    count, labels = cv2.connectedComponents((depth >= NECK * radius).astype(np.uint8), connectivity=8)
    areas = np.bincount(labels[core], minlength=count)
    core &= (areas >= SIMILAR * areas.max())[labels]
    # A disk moved through the content: circles, octagons and rectangles keep their width and height.
    picture = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5) < SECOND_PICTURE * radius
    picture = picture[1:-1, 1:-1]
    return picture, content & ~picture


def _bounds(mask: NDArray[np.bool_]) -> Box:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _with_dim_parts(box: Box, others: NDArray[np.bool_], image: NDArray[np.uint8]) -> Box:
    """Take in dim parts beside the box: the same picture, with a shadow between that is as black as the margin."""
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
        if 1 / WIDEST <= width / height <= WIDEST:
            box = wider
    height, width = image.shape[:2]
    return max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
