"""Polygons of a mask that reproduce it exactly when they are drawn.

All corners are corners of pixels, in whole numbers: the pixel in column x and row y is the square from (x, y) to
(x + 1, y + 1), as in COCO. A program that fills the pixels whose centers are inside, such as pycocotools, gets the
mask back to the pixel, and so do `open_dataset` and `finetune`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.opencv import cv2
from condseg_sdk.segmentation import Region, find_regions

__all__ = ["one_polygon", "simple_polygons"]

Cut: TypeAlias = tuple[int, int, int]
"""Where a cut begins, x and y, and the number of the hole to which it leads."""


def one_polygon(region: Region) -> NDArray[np.int32]:
    """Join the outlines of a region and of its holes into one polygon.

    Most annotation formats support neither holes nor regions of several polygons. A cut of zero width leads from each
    hole to the outline and back, so that filling the polygon leaves the hole out.

    Args:
        region: Region with or without holes.

    Returns:
        Corners x, y, int32 (N, 2); the last one is joined to the first.

    Example:
        >>> from condseg_sdk.segmentation import find_regions
        >>> ring = np.ones((3, 3), bool)
        >>> ring[1, 1] = False
        >>> len(one_polygon(find_regions(ring)[0]))
        11
    """
    rings = (region.outline, *region.holes)
    firsts = [0, *(int(np.lexsort((hole[:, 1], hole[:, 0]))[0]) for hole in region.holes)]
    cuts = _cuts(rings, firsts)
    points: list[tuple[int, int]] = []
    walks = [_walk(rings[0], 0, cuts[0])]
    while walks:  # no recursion: a cut may lead to a hole with cuts of its own, and so on
        step = next(walks[-1], None)
        if step is None:
            walks.pop()
        elif isinstance(step, int):
            walks.append(_walk(rings[step], firsts[step], cuts[step]))
        else:
            points.append(step)
    corners = np.array(points, np.int32)
    return corners[np.any(corners != np.roll(corners, 1, 0), 1)]


def _cuts(rings: Sequence[NDArray[np.int32]], firsts: Sequence[int]) -> list[dict[int, list[Cut]]]:
    """For each hole, find the nearest vertical edge to the left of its leftmost corner, with nothing between them.

    Returns:
        For each ring, the cuts that begin on its edges, by the number of the edge.
    """
    cuts: list[dict[int, list[Cut]]] = [defaultdict(list) for _ in rings]
    owners = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    numbers = np.concatenate([np.arange(len(ring)) for ring in rings])
    starts, ends = np.concatenate(rings), np.concatenate([np.roll(ring, -1, 0) for ring in rings])
    vertical = np.flatnonzero(starts[:, 0] == ends[:, 0])
    edge_x = starts[vertical, 0]
    upper, lower = (
        np.minimum(starts[vertical, 1], ends[vertical, 1]),
        np.maximum(starts[vertical, 1], ends[vertical, 1]),
    )
    for hole in range(1, len(rings)):
        x, y = rings[hole][firsts[hole]].tolist()
        reached = np.flatnonzero((edge_x <= x) & (upper <= y) & (y <= lower) & (owners[vertical] != hole))
        edge = vertical[reached[np.argmax(edge_x[reached])]]
        cuts[owners[edge]][int(numbers[edge])].append((int(starts[edge, 0]), y, hole))
    return cuts


def _walk(ring: NDArray[np.int32], first: int, cuts: Mapping[int, list[Cut]]) -> Iterator[tuple[int, int] | int]:
    """Yield the corners of a ring from the first one back to it, and at the end of a cut the number of its hole."""
    corners = ring.tolist()
    for step in range(len(corners)):
        number = (first + step) % len(corners)
        x, y = corners[number]
        yield x, y
        for cut_x, cut_y, hole in sorted(cuts.get(number, ()), key=lambda cut: abs(cut[1] - y)):
            yield cut_x, cut_y
            yield hole
            yield cut_x, cut_y
    yield corners[first][0], corners[first][1]


def simple_polygons(region: Region) -> list[tuple[NDArray[np.int32], ...]]:
    """Divide a region into polygons that do not touch themselves, as geographic formats require.

    Pixels that touch only at a corner belong to one region, but to different polygons.

    Args:
        region: Region with or without holes.

    Returns:
        For each polygon its outline and the outlines of its holes: corners x, y, int32 (N, 2), without a repeated one.

    Example:
        >>> from condseg_sdk.segmentation import find_regions
        >>> [len(rings) for rings in simple_polygons(find_regions(np.eye(2, dtype=bool))[0])]
        [1, 1]
    """
    left, top, right, bottom = region.box
    corner = np.array([left, top], np.int32)
    # Only this region is in its box: others may be inside its holes.
    drawn = np.zeros((2 * (bottom - top), 2 * (right - left)), np.uint8)
    cv2.fillPoly(drawn, [2 * (ring - corner) for ring in (region.outline, *region.holes)], (1,))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(drawn[1::2, 1::2], connectivity=4)
    polygons = []
    for number in range(1, count):
        x, y, width, height, _ = boxes[number].tolist()
        part = find_regions(labels[y : y + height, x : x + width] == number)[0]
        polygons.append(tuple(ring + corner + np.array([x, y], np.int32) for ring in (part.outline, *part.holes)))
    return polygons
