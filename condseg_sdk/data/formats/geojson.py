"""GeoJSON in pixels, as QuPath and this package write it: one file for each image, polygons with holes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from condseg_sdk.data.formats.base import DatasetFormat, Described
from condseg_sdk.data.pairs import Problem, RegionMask, one_line, problems_of
from condseg_sdk.data.shapes import is_point
from condseg_sdk.errors import DatasetError

__all__ = ["FORMAT"]

KIND = "GeoJSON polygons"
NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")


def _recognizes(content: Any) -> bool:
    """Return whether JSON looks like GeoJSON: a collection of features, or a list of them as QuPath exports it."""
    if isinstance(content, dict):
        return content.get("type") in ("FeatureCollection", "Feature")
    return isinstance(content, list) and bool(content) and all(map(_is_feature, content))


def _is_feature(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "Feature"


def _read(content: Any, file: Path) -> tuple[Described, list[Problem]]:
    """Read the one image of a GeoJSON file.

    Args:
        content: Content that `_recognizes` accepts.
        file: Path of the file, whose name is used if the image is not named.

    Returns:
        The image, and a problem for points and lines, which have no area and are left out.

    Raises:
        DatasetError: A feature is damaged.
    """
    whole = content if isinstance(content, dict) else {"features": content}
    features = [whole] if _is_feature(whole) else whole.get("features")
    if not isinstance(features, list):
        raise DatasetError(f"{file} has no list 'features'; export it again as a FeatureCollection")
    name, height, width = (whole.get(key) for key in ("image", "height", "width"))
    size = (height, width) if type(height) is int and type(width) is int and min(height, width) > 0 else None
    regions, labels, left_out = [], [], []
    for number, feature in enumerate(features):
        geometry = feature.get("geometry") if _is_feature(feature) else None
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if isinstance(kind, str) and kind in NO_AREA:
            left_out.append(f"{kind} in {file}")
            continue
        regions.append(list(_polygons(geometry, f"{file}: feature {number}")))
        labels.append(_label(feature.get("properties")))
    noticed = problems_of("warning", "shape", "of GeoJSON without an area, left out; draw polygons", left_out)
    named = name if isinstance(name, str) and name.strip() else file.stem
    return {None: [RegionMask(file, named, size, tuple(regions), kind=KIND, labels=tuple(labels))]}, noticed


def _polygons(geometry: Any, place: str) -> Iterator[list[float]]:
    """Convert a geometry: an outline and its holes become one polygon, with a cut to each hole and back."""
    content: dict[str, Any] = geometry if isinstance(geometry, dict) else {}
    kind, several = content.get("type"), content.get("coordinates")
    if kind == "Polygon":
        several = [several]
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(several, list) or not several:
        shown = one_line(repr(kind), 40)
        raise DatasetError(f"{place} has a geometry of the type {shown}; export polygons, in pixels of the image")
    for rings in several:
        if not isinstance(rings, list) or not rings or not all(_is_ring(ring) for ring in rings):
            raise DatasetError(f"{place} has a ring that is not four or more points [x, y]; export it again")
        outline, *holes = rings
        joined = [*outline, *(point for hole in holes for point in (*hole, outline[0]))]
        yield [float(value) for point in joined for value in point]


def _is_ring(ring: Any) -> bool:
    return isinstance(ring, list) and len(ring) >= 4 and all(map(is_point, ring))


def _label(properties: Any) -> str:
    found = properties.get("classification", "") if isinstance(properties, dict) else ""
    name = found.get("name", "") if isinstance(found, dict) else found
    return name if isinstance(name, str) else ""


FORMAT = DatasetFormat("GeoJSON", _recognizes, _read, suffixes=(".geojson", ".json"), one_image=True)
