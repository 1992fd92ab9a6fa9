"""Finds masks that can be read but are probably wrong: single pixels, boxes instead of outlines, a wrong scale.

An annotation file is valid at any scale of its coordinates; only the drawn mask shows a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.data.pairs import Problem, problems_of
from condseg_sdk.opencv import cv2

__all__ = ["MaskShape", "describe_shape", "implausible"]

TINY, TINY_SHARE = 9, 0.01  # pixels, and share of the image, below which a whole mask is not a region
SMALLEST_BOX = 8  # pixels; smaller regions may be rectangles by chance
CORNER, FEWEST_IN_CORNER = 0.5, 5  # share of width and height; number of masks that is no coincidence
MOST = 0.5  # share of the masks that must be boxes


@dataclass(frozen=True)
class MaskShape:
    """The properties of a mask's shape that show whether it is plausible.

    Attributes:
        pixels: Number of foreground pixels.
        share: Share of foreground, in [0, 1].
        border: Share of foreground in the outermost pixels, in [0, 1].
        reach: Lower and right end of the foreground as shares of height and width; (0, 0) without foreground.
        is_boxes: Whether the foreground is only upright filled rectangles, and not the whole image.
    """

    pixels: int
    share: float
    border: float
    reach: tuple[float, float]
    is_boxes: bool


def describe_shape(mask: NDArray[np.bool_]) -> MaskShape:
    """Describe the shape of a mask, bool (H, W)."""
    edge = np.concatenate((mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    pixels = int(np.count_nonzero(mask))
    reach, is_boxes = (0.0, 0.0), False
    if pixels:
        reach = ((rows[-1] + 1) / mask.shape[0], (columns[-1] + 1) / mask.shape[1])
        is_boxes = pixels < mask.size and _is_boxes(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return MaskShape(pixels, pixels / mask.size, float(edge.mean()), reach, is_boxes)


def _is_boxes(mask: NDArray[np.bool_]) -> bool:
    if mask.all():
        return min(mask.shape) >= SMALLEST_BOX
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    areas, widths, heights = (stats[1:, column] for column in (cv2.CC_STAT_AREA, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT))
    large = np.minimum(widths, heights) >= SMALLEST_BOX
    return bool(large.any() and (areas == widths * heights).all())


def implausible(masks: Sequence[tuple[str, MaskShape]]) -> list[Problem]:
    """Report the masks that are probably wrong.

    Args:
        masks: Names and shapes of all masks of a dataset.
    """
    filled = [(name, shape) for name, shape in masks if shape.pixels]
    tiny = [name for name, shape in filled if shape.pixels <= TINY and shape.share < TINY_SHARE]
    scale = "check that coordinates are pixels of that image"
    problems = problems_of(
        "error" if len(tiny) == len(filled) else "warning",
        "mask",
        f"with an area of {TINY} pixels or fewer; {scale}",
        tiny,
    )
    boxes = [name for name, shape in filled if shape.is_boxes]
    if len(boxes) >= MOST * len(filled):
        message = "that are only rectangles, so the network learns boxes; draw outlines if these are boxes"
        problems += problems_of("warning", "mask", message, boxes)
    in_corner = [name for name, shape in filled if max(shape.reach) < CORNER]
    if len(in_corner) == len(filled) >= FEWEST_IN_CORNER and len(tiny) < len(filled):
        message = f"all in the upper left quarter of their images; {scale}, not percent or pixels of a smaller image"
        problems += problems_of("warning", "mask", message, in_corner)
    return problems
