"""CVAT XML ("CVAT for images 1.1"): polygons, masks and ellipses of the images of a task or a project."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from condseg_sdk.data.formats.base import MAX_BYTES, DatasetFormat, Described
from condseg_sdk.data.pairs import Problem, RegionMask, one_line, problems_of
from condseg_sdk.data.shapes import GREATEST, ellipse, run_lengths
from condseg_sdk.errors import DatasetError
from condseg_sdk.images.load import MAX_PIXELS

__all__ = ["FORMAT"]

KIND = "CVAT shapes"
REMEDY = "export the task again as 'CVAT for images 1.1'"
NO_AREA = ("polyline", "points", "tag", "skeleton", "cuboid")


def _load(file: Path) -> ElementTree.Element:
    """Parse XML. Documents that define entities are refused: no annotation needs them, and they can fill the memory."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{file} has more than {MAX_BYTES // 2**20} MiB; export fewer images at once")
        data = file.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise DatasetError(f"{file} has a document type definition, which is not read; {REMEDY}")
        return ElementTree.fromstring(data)
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror}); {REMEDY}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{file} is not XML ({one_line(error, 100)}); {REMEDY}") from error


def _recognizes(content: Any) -> bool:
    """Return whether XML looks like CVAT: <annotations> with images or tracks."""
    if not isinstance(content, ElementTree.Element) or content.tag != "annotations":
        return False
    return any(content.find(tag) is not None for tag in ("image", "track", "meta"))


def _read(content: ElementTree.Element, file: Path) -> tuple[Described, list[Problem]]:
    """Read the images of a CVAT file; damaged shapes are left out and reported.

    Args:
        content: Content that `_recognizes` accepts.
        file: Path of the file.

    Returns:
        The images, and the problems with their shapes.

    Raises:
        DatasetError: The file describes a video, or no image that can be used.
    """
    if content.find("track") is not None:
        raise DatasetError(f"{file} is 'CVAT for video', whose shapes belong to tracks; {REMEDY}")
    images: list[RegionMask] = []
    lost: dict[str, list[str]] = defaultdict(list)
    for number, element in enumerate(content.iter("image")):
        name = element.get("name", "")
        try:
            size = _whole(element, "height"), _whole(element, "width")
            if not name.strip() or min(size) < 1 or math.prod(size) > MAX_PIXELS:
                raise ValueError("no name or no size in pixels")
        except ValueError as error:
            lost["image"].append(f"image {number} ({one_line(error, 80)})")
            continue
        regions, labels = [], []
        for shape in element:
            place = f"{shape.tag} in {one_line(name, 100)}"
            if shape.tag in ("box", *NO_AREA):
                lost["box" if shape.tag == "box" else "no area"].append(place)
                continue
            try:
                regions.append(_region(shape, size))
                labels.append(shape.get("label", ""))
            except ValueError as error:
                lost["shape"].append(f"{place} ({one_line(error, 80)})")
        images.append(RegionMask(file, name, size, tuple(regions), kind=KIND, labels=tuple(labels)))
    problems = [
        *problems_of("error", "image", f"of {file} that cannot be used; {REMEDY}", lost["image"]),
        *problems_of("error", "shape", f"of {file} that cannot be used; draw it again in CVAT", lost["shape"]),
        *problems_of("error", "box", f"of {file} without an outline; draw polygons or masks in CVAT", lost["box"]),
        *problems_of("warning", "shape", f"of {file} without an area, left out; draw polygons", lost["no area"]),
    ]
    if not images:
        raise DatasetError(problems[0].line() if problems else f"{file} lists no images; {REMEDY}")
    return {None: images}, problems


def _region(shape: ElementTree.Element, size: tuple[int, int]) -> Any:
    """Convert a shape to polygons or run lengths.

    Raises:
        ValueError: The shape is damaged or of an unknown kind.
    """
    if shape.tag == "polygon":
        polygon = [_finite(v) for point in shape.get("points", "").split(";") for v in _two(point)]
        if len(polygon) < 6:
            raise ValueError("fewer than three points")
        return [polygon]
    if shape.tag == "ellipse":
        x, y, across, along = (_finite(shape.get(key, "")) for key in ("cx", "cy", "rx", "ry"))
        return [ellipse(x, y, across, along, math.radians(_finite(shape.get("rotation", "0"))))]
    if shape.tag == "mask":
        return _painted(shape, size)
    raise ValueError("a shape of an unknown kind")


def _painted(shape: ElementTree.Element, size: tuple[int, int]) -> dict[str, object]:
    """Decode a mask: the lengths of its runs row by row, background first, in a box at (left, top)."""
    left, top, width, height = (_whole(shape, key) for key in ("left", "top", "width", "height"))
    counts = [int(count) for count in shape.get("rle", "").split(",")]
    if min(width, height) < 1 or width * height > MAX_PIXELS or min(counts) < 0 or sum(counts) != width * height:
        raise ValueError("run lengths that do not fill the mask")
    values = np.arange(len(counts)) % 2 == 1
    return run_lengths(np.repeat(values, counts).reshape(height, width), (left, top), size)


def _two(point: str) -> tuple[str, str]:
    x, _, y = point.partition(",")
    return x, y


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) <= GREATEST:
        raise ValueError("a coordinate out of range")
    return value


def _whole(element: ElementTree.Element, key: str) -> int:
    value = int(element.get(key, ""))
    if abs(value) > GREATEST:
        raise ValueError(f"{key} out of range")
    return value


FORMAT = DatasetFormat("CVAT", _recognizes, _read, suffixes=(".xml",), load=_load)
