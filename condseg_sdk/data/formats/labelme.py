"""LabelMe JSON, one file for each image: polygons, rectangles, circles and masks. AnyLabeling writes the same."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condseg_sdk.data.formats.base import DatasetFormat, Described
from condseg_sdk.data.pairs import Problem, RegionMask, one_line, problems_of
from condseg_sdk.data.shapes import box, ellipse, is_point, run_lengths
from condseg_sdk.errors import CondsegError, DatasetError
from condseg_sdk.images.load import MAX_PIXELS, load_image

__all__ = ["FORMAT"]

KIND = "LabelMe shapes"
POLYGONS = ("polygon", "rotation", None)  # LabelMe's first versions wrote no type
NO_AREA = ("point", "points", "line", "linestrip")


def _recognizes(content: Any) -> bool:
    """Return whether JSON looks like LabelMe: an object with "shapes" and the image's path or size."""
    return isinstance(content, dict) and "shapes" in content and bool({"imagePath", "imageHeight"} & content.keys())


def _read(content: Mapping[str, Any], file: Path) -> tuple[Described, list[Problem]]:
    """Read the one image of a LabelMe file, which is named after the file if the content does not name it.

    Returns:
        The image, and a problem for points and lines, which have no area and are left out.

    Raises:
        DatasetError: A shape is damaged or of an unknown type.
    """
    shapes, name = content["shapes"], content.get("imagePath") or file.stem
    if not isinstance(shapes, list) or not isinstance(name, str):
        raise DatasetError(
            f"{file} is not a LabelMe file: 'shapes' must be a list and 'imagePath' a string; save it again"
        )
    size = _size(content, file)
    regions, labels, left_out = [], [], []
    for number, shape in enumerate(shapes):
        kind = shape.get("shape_type") if isinstance(shape, dict) else None
        if isinstance(kind, str) and kind in NO_AREA:
            left_out.append(f"{kind} in {file}")
        else:
            regions.append(_region(shape, kind, size, f"{file}: shape {number}"))
            labels.append(label if isinstance(label := shape.get("label"), str) else "")
    noticed = problems_of("warning", "shape", "of LabelMe without an area, left out; draw polygons", left_out)
    return {None: [RegionMask(file, name, size, tuple(regions), kind=KIND, labels=tuple(labels))]}, noticed


def _size(content: Mapping[str, Any], file: Path) -> tuple[int, int] | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height is None or width is None:
        return None
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise DatasetError(f"{file}: imageHeight and imageWidth must be numbers of pixels; save it again in LabelMe")
    return height, width


def _region(shape: Any, kind: Any, size: tuple[int, int] | None, place: str) -> Any:
    """Convert a shape to a region: polygons or run lengths."""
    points = shape.get("points") if isinstance(shape, dict) else None
    if not isinstance(points, list) or not all(is_point(point) for point in points):
        raise DatasetError(f"{place} has no 'points' [[x, y], ...] in numbers; draw it again in LabelMe")
    if kind in POLYGONS and len(points) >= 3:
        return [[float(value) for point in points for value in point]]
    if kind == "rectangle" and len(points) in (2, 4):
        xs, ys = zip(*points, strict=True)
        return [box(min(xs), min(ys), max(xs), max(ys))]
    if kind == "circle" and len(points) == 2:
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        return [ellipse(x, y, radius, radius)]
    if kind == "mask" and len(points) == 2 and size is not None:
        x, y = points[0]
        return _painted(shape.get("mask"), (round(x), round(y)), size, place)
    raise DatasetError(
        f"{place} is of the type {one_line(repr(kind), 40)} with {len(points)} points; in LabelMe, draw a polygon, "
        "rectangle, circle or mask"
    )


def _painted(encoded: Any, corner: tuple[int, int], size: tuple[int, int], place: str) -> dict[str, Any]:
    """Decode a mask shape: a PNG in base64 whose upper left pixel is at `corner`."""
    if math.prod(size) > MAX_PIXELS:
        raise DatasetError(f"{place}: an image of {size[1]}x{size[0]} is larger than {MAX_PIXELS:,} pixels; correct it")
    try:
        pixels = load_image(base64.b64decode(encoded, validate=True))
    except (TypeError, ValueError, CondsegError) as error:  # binascii.Error is a ValueError
        reason = one_line(error, 100)
        raise DatasetError(f"{place} has no readable mask ({reason}); draw it again in LabelMe") from error
    return run_lengths(pixels[..., 0] > 0, corner, size)


FORMAT = DatasetFormat("LabelMe", _recognizes, _read, one_image=True)
