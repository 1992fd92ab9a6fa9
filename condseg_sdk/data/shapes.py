"""Shapes of annotation files as regions: polygons [x1, y1, x2, y2, ...] and run lengths as in COCO."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["box", "ellipse", "is_number", "is_point", "run_lengths"]

CORNERS = 72  # number of corners of a polygon that approximates a circle to 0.1 % of its radius
GREATEST = 1e9  # pixels; larger values are not coordinates


def is_number(value: object) -> bool:
    """Return whether a value of a JSON file can be a coordinate."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= GREATEST


def is_point(value: object) -> bool:
    """Return whether a value of a JSON file is [x, y]."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def box(left: float, upper: float, right: float, lower: float) -> list[float]:
    """Make a polygon [x1, y1, x2, y2, ...] of a rectangle."""
    return [left, upper, right, upper, right, lower, left, lower]


def ellipse(x: float, y: float, across: float, along: float, turned: float = 0.0) -> list[float]:
    """Approximate an ellipse by a polygon.

    Args:
        x: Center in x.
        y: Center in y.
        across: Radius in x before the rotation.
        along: Radius in y before the rotation.
        turned: Angle of the rotation in radians, from the x axis to the y axis.
    """
    polygon: list[float] = []
    for corner in range(CORNERS):
        angle = 2 * math.pi * corner / CORNERS
        dx, dy = across * math.cos(angle), along * math.sin(angle)
        polygon.append(x + dx * math.cos(turned) - dy * math.sin(turned))
        polygon.append(y + dx * math.sin(turned) + dy * math.cos(turned))
    return polygon


def run_lengths(painted: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> dict[str, object]:
    """Encode a patch of a mask as COCO run lengths of the whole image.

    Args:
        painted: Patch of the mask, bool (h, w).
        corner: (x, y) of its upper left pixel. Pixels outside of the image are cut off.
        size: (height, width) of the image.
    """
    x, y = corner
    whole = np.zeros(size, np.bool_)
    rows = slice(max(y, 0), max(min(y + painted.shape[0], size[0]), 0))
    columns = slice(max(x, 0), max(min(x + painted.shape[1], size[1]), 0))
    whole[rows, columns] = painted[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    flat = whole.ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return {"size": list(size), "counts": [0, *counts] if flat[0] else counts}
