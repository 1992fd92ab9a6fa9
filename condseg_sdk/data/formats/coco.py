"""COCO JSON (instances): images and their regions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from condseg_sdk.data.formats.base import DatasetFormat, Described
from condseg_sdk.data.pairs import Problem, RegionMask, one_line, problems_of
from condseg_sdk.errors import DatasetError

__all__ = ["FORMAT"]

KIND = "COCO regions"


def _recognizes(content: Any) -> bool:
    """Return whether JSON looks like COCO: an object with "images" and "annotations"."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _read(content: Mapping[str, Any], file: Path) -> tuple[Described, list[Problem]]:
    """Read the images of a COCO file; damaged entries are left out and reported.

    Returns:
        The images, and the problems with other entries.

    Raises:
        DatasetError: The file is not a COCO file, or has no usable image.
    """
    if not all(isinstance(content[key], list) for key in ("images", "annotations")):
        raise DatasetError(f"{file} is not a COCO file: it needs the lists 'images' and 'annotations'")
    if not content["images"]:
        raise DatasetError(f"{file} lists no images; export it again with images")
    entries, problems = _entries(content["images"], file)
    names = {key: entry["file_name"] for key, entry in entries.items()}
    categories = _categories(content)
    regions, noticed = _regions(content["annotations"], names, categories, file)
    images = [
        RegionMask(
            file,
            entry["file_name"],
            _size(entry),
            tuple(region for _, region in regions[key]),
            kind=KIND,
            labels=tuple(label for label, _ in regions[key]),
        )
        for key, entry in entries.items()
    ]
    return {None: images}, [*problems, *noticed, *_remarks(content, file)]


def _entries(listed: Sequence[Any], file: Path) -> tuple[dict[int | str, dict[str, Any]], list[Problem]]:
    """Return the usable entries of "images" by their id."""
    entries: dict[int | str, dict[str, Any]] = {}
    incomplete, sizes, again = [], [], []
    for number, entry in enumerate(listed):
        if not _is_image(entry):
            incomplete.append(f"entry {number}: {one_line(entry, 100)}")
        elif any(entry.get(key) is not None and not _is_length(entry[key]) for key in ("width", "height")):
            sizes.append(one_line(f"{entry['file_name']} is {entry.get('width')}x{entry.get('height')}", 100))
        elif entry["id"] in entries:
            again.append(one_line(f"id {entry['id']!r}", 100))
        else:
            entries[entry["id"]] = entry
    place, remedy = f"of {file}", "export it again"
    problems = [
        *problems_of("error", "image", f"{place} without a valid id or file_name; {remedy}", incomplete),
        *problems_of("error", "image", f"{place} without a size in pixels; {remedy}", sizes),
        *problems_of("error", "image", f"{place} with the id of another one; ids must differ", again),
    ]
    if not entries:
        raise DatasetError(problems[0].line())
    return entries, problems


def _is_image(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry.get("id")) in (int, str)
        and isinstance(entry.get("file_name"), str)
        and bool(entry["file_name"].strip())
    )


def _is_length(value: Any) -> bool:
    return type(value) in (int, float) and value >= 1 and value == int(value)


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return None if height is None or width is None else (int(height), int(width))


def _regions(
    annotations: Sequence[Any], names: Mapping[int | str, str], categories: Mapping[int | str, str], file: Path
) -> tuple[dict[int | str, list[tuple[str, Any]]], list[Problem]]:
    """Return the classes and segmentations by image id, and the annotations that cannot be used."""
    regions: dict[int | str, list[tuple[str, Any]]] = defaultdict(list)
    lost: dict[str, list[str]] = defaultdict(list)
    for number, annotation in enumerate(annotations):
        identity: Any = annotation.get("image_id") if isinstance(annotation, dict) else None
        if type(identity) not in (int, str) or identity not in names:
            lost["image"].append(one_line(f"entry {number} for image {identity!r}", 100))
            continue
        region = annotation.get("segmentation")
        if region:
            # Some tools write one polygon without the list around it.
            is_flat = isinstance(region, list) and type(region[0]) in (int, float)
            regions[identity].append((_label(annotation, categories), [region] if is_flat else region))
        elif annotation.get("bbox"):
            lost["box"].append(names[identity])
        else:
            lost["nothing"].append(names[identity])
    what = {
        "image": "for an image that is not in 'images'; export it again",
        "box": "with a box but no outline; export masks or polygons instead of boxes",
        "nothing": "with an empty segmentation; draw it, or remove the annotation",
    }
    problems = [
        problem
        for key, text in what.items()
        for problem in problems_of("error", "annotation", f"of {file} {text}", lost[key])
    ]
    if not annotations:
        problems.append(Problem("error", f"{file} has no annotations, only images; export it again with them"))
    return regions, problems


def _categories(content: Mapping[str, Any]) -> dict[int | str, str]:
    """Return the names of the categories by their id."""
    categories = content.get("categories")
    listed = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    return {c["id"]: one_line(c.get("name"), 100) for c in listed if isinstance(c.get("id"), (int, str))}


def _label(annotation: Mapping[str, Any], categories: Mapping[int | str, str]) -> str:
    key = annotation.get("category_id")
    return "" if not isinstance(key, (int, str)) else categories.get(key, str(key))


def _remarks(content: Mapping[str, Any], file: Path) -> Iterator[Problem]:
    """Report categories that the file does not list."""
    keys = (a.get("category_id") for a in content["annotations"] if isinstance(a, dict))
    used = Counter(key if isinstance(key, (int, str)) else None for key in keys)
    known = _categories(content)
    unknown = [str(key) for key in used if key not in known] if known else []
    message = f"used in {file.name} and not listed there, read as foreground"
    yield from problems_of("warning", "category id", message, unknown)


FORMAT = DatasetFormat("COCO", _recognizes, _read)
