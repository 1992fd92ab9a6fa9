"""JSON of the VGG Image Annotator (VIA 1 and 2), a project or an export: polygons, rectangles, circles and ellipses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condseg_sdk.data.formats.base import DatasetFormat, Described
from condseg_sdk.data.pairs import Problem, RegionMask, one_line, problems_of
from condseg_sdk.data.shapes import box, ellipse, is_number
from condseg_sdk.errors import DatasetError

__all__ = ["FORMAT"]

KIND = "VIA shapes"
NUMBERS = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
CLASS_NAMES = ("class", "label", "category", "name", "type")
NO_AREA = ("point", "polyline", "line")


def _recognizes(content: Any) -> bool:
    """Return whether JSON looks like VIA: entries with "filename" and "regions", perhaps inside a project."""
    if not isinstance(content, dict):
        return False
    if "_via_img_metadata" in content:
        return True
    return bool(content) and all(isinstance(v, dict) and {"filename", "regions"} <= v.keys() for v in content.values())


def _read(content: Mapping[str, Any], file: Path) -> tuple[Described, list[Problem]]:
    """Read the images of a VIA file; damaged entries are left out and reported.

    Returns:
        The images, whose sizes VIA does not store, and the problems with other entries.

    Raises:
        DatasetError: The file has no usable image.
    """
    entries = content.get("_via_img_metadata", content)
    if not isinstance(entries, dict) or not entries:
        raise DatasetError(f"{file} lists no images; export it again with images")
    images, damaged, left_out = [], [], []
    for key, entry in entries.items():
        try:
            name, shapes = _entry(entry)
            drawn = [(shape, label) for shape, label in shapes if shape.get("name") not in NO_AREA]
            left_out += [f"{s['name']} in {one_line(name, 100)}" for s, _ in shapes if s.get("name") in NO_AREA]
            regions, labels = tuple([_polygon(shape)] for shape, _ in drawn), tuple(label for _, label in drawn)
            images.append(RegionMask(file, name, None, regions, kind=KIND, labels=labels))
        except ValueError as error:
            damaged.append(f"{one_line(key, 100)} ({error})")
    problems = [
        *problems_of("error", "entry", f"of {file} that cannot be used; correct it in VIA and export again", damaged),
        *problems_of("warning", "shape", f"of {file} without an area, left out; draw polygons", left_out),
    ]
    if not images:
        raise DatasetError(problems[0].line())
    return {None: images}, problems


def _entry(entry: Any) -> tuple[str, list[tuple[dict[str, Any], str]]]:
    """Return the name of an image and its shapes with their classes.

    Raises:
        ValueError: The entry is not in VIA's format.
    """
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise ValueError("no filename")
    regions = entry.get("regions")
    listed = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
    if not isinstance(listed, list):
        raise ValueError("no list of regions")
    found = []
    for region in listed:
        shape = region.get("shape_attributes") if isinstance(region, dict) else None
        if not isinstance(shape, dict):
            raise ValueError("a region without shape_attributes")
        found.append((shape, _label(region.get("region_attributes"))))
    return name, found


def _label(attributes: Any) -> str:
    """Return the class of a region: the attribute in `CLASS_NAMES`, or the only attribute."""
    texts = (
        {key.lower(): value for key, value in attributes.items() if isinstance(value, str)}
        if isinstance(attributes, dict)
        else {}
    )
    found = [texts[key] for key in CLASS_NAMES if key in texts]
    return found[0] if found else next(iter(texts.values())) if len(texts) == 1 else ""


def _polygon(shape: Mapping[str, Any]) -> list[float]:
    kind = shape.get("name")
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys) >= 3):
            raise ValueError("a polygon of fewer than three points")
        if not all(map(is_number, [*xs, *ys])):
            raise ValueError("a polygon with points that are not numbers")
        return [float(value) for point in zip(xs, ys, strict=True) for value in point]
    keys = NUMBERS.get(kind) if isinstance(kind, str) else None
    if keys is None:
        raise ValueError(f"a shape of the type {one_line(repr(kind), 40)}")
    values: list[Any] = [shape.get(key) for key in keys]
    if not all(map(is_number, values)):
        raise ValueError(f"a {kind} without {', '.join(keys)} in numbers")
    if kind == "rect":
        x, y, width, height = values
        return box(x, y, x + width, y + height)
    x, y, across, along = values if kind == "ellipse" else (*values, values[2])
    turned = shape.get("theta", 0.0)
    return ellipse(x, y, across, along, turned if is_number(turned) else 0.0)


FORMAT = DatasetFormat("VIA", _recognizes, _read)
