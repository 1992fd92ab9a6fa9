"""YOLO segmentation: data.yaml, and for each image a text file of polygons in fractions of its width and height."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from condseg_sdk.data.formats.base import DatasetFormat, Described
from condseg_sdk.data.pairs import Problem, RegionMask, Split, one_line, problems_of
from condseg_sdk.data.text_files import read_text
from condseg_sdk.errors import DatasetError
from condseg_sdk.images.load import IMAGE_SUFFIXES
from condseg_sdk.walk import walk_folder

__all__ = ["FORMAT"]

KEYS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
MAX_BYTES = 2**20  # size of data.yaml
REMEDY = "correct it, or export the set again"


class _Loader(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML has no types
    """Loads all values as text, without aliases: a few of them repeat a list a billion times."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, such as *name, which is not read")
        return super().compose_node(parent, index)


def _load(file: Path) -> Any:
    """Load YAML with all numbers as text, so that no value of a damaged file fails to load."""
    if file.stat().st_size > MAX_BYTES:
        raise DatasetError(f"{file} has more than {MAX_BYTES // 2**20} MiB, too much for a data.yaml; {REMEDY}")
    try:
        return yaml.load(read_text(file, remedy=REMEDY), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = one_line(error, 150) or "nested too deep"
        raise DatasetError(f"{file} is not YAML ({reason}); {REMEDY}") from error


def _recognizes(content: Any) -> bool:
    """Return whether YAML describes a dataset: it has folders or lists of images, or the names of classes.

    Settings of a training may have the key train, too, but no path there.
    """
    if not isinstance(content, dict):
        return False
    places = [entry for key in KEYS for entry in _entries(content.get(key))]
    return any("/" in place or "images" in place or place.endswith(".txt") for place in places) or (
        "names" in content and bool({"path", "nc", *KEYS} & content.keys())
    )


def _read(content: Mapping[str, Any], file: Path) -> tuple[Described, list[Problem]]:
    """Read the images that data.yaml lists, with their label files.

    Returns:
        The images with a label file that can be used, and the problems with the others.

    Raises:
        DatasetError: No image can be used.
    """
    if "names" not in content:
        raise DatasetError(f"{file} lacks names, the list of classes; add it, such as names: [polyp]")
    if not KEYS.keys() & content.keys():
        raise DatasetError(f"{file} lacks train, val and test, the folders of images; add one, such as train: images")
    found: Described = {split: [] for split in KEYS.values()}
    unlabeled, damaged, missing, unreadable = [], [], [], []
    names = _names(content["names"])
    for key, split in KEYS.items():
        for entry in _entries(content.get(key)):
            place = _resolve(entry, content.get("path"), file)
            if place is None:
                missing.append(f"{key}: {one_line(entry, 150)}")
                continue
            try:
                images = [*_images(place)]
            except DatasetError as error:
                unreadable.append(f"{key}: {error}")
                continue
            for image in images:
                labels = _label_file(image)
                try:
                    if not labels.is_file():
                        unlabeled.append(str(image))
                        continue
                    regions, used = _regions(labels)
                except DatasetError as error:
                    damaged.append(str(error))
                    continue
                called = tuple(names.get(str(number), str(number)) for number in used)
                found[split].append(
                    RegionMask(
                        labels, image.name, None, regions, image, "YOLO polygons", is_normalized=True, labels=called
                    )
                )
    remedy = "add one (an empty file says that there is nothing to find), or remove the image"
    problems = [
        *problems_of("error", "entry", f"of {file} that cannot be found; correct its path", missing),
        *problems_of("error", "list", f"of {file} that cannot be used; correct its path, or the list", unreadable),
        *problems_of("error", "image", f"without a label file; {remedy}", unlabeled),
        *problems_of("error", "label file", "that cannot be used; correct it, or export it again", damaged),
    ]
    if not any(found.values()):
        raise DatasetError(problems[0].line() if problems else f"{file} lists no images; {REMEDY}")
    return found, problems


def _entries(value: Any) -> list[str]:
    """Return the paths of a split: one, several, or none where the key is missing or empty."""
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if isinstance(entry, str) and entry.strip()]


def _resolve(entry: str, root: Any, file: Path) -> Path | None:
    """Return the folder or list of images that an entry means on this machine.

    Roboflow writes ../train/images for the folder train/images beside data.yaml.
    """
    folders = [file.parent / root, file.parent] if isinstance(root, str) else [file.parent]
    inside = entry.replace("\\", "/").removeprefix("../")
    candidates = (folder / path for path in (entry, inside) for folder in folders)
    try:
        return next((path for path in candidates if path.exists()), None)
    except (OSError, ValueError):  # too long, or with a null character
        return None


def _images(place: Path) -> Iterator[Path]:
    """Return the image files below a folder, or those that a text file lists."""
    if place.is_dir():
        yield from walk_folder(place, suffixes=IMAGE_SUFFIXES).files
    elif place.suffix.lower() in IMAGE_SUFFIXES:
        yield place
    else:
        lines = read_text(place, remedy="write text, one image per line").splitlines()
        yield from (place.parent / line.strip() for line in lines if line.strip())


def _label_file(image: Path) -> Path:
    """Return the label file of an image: in labels/ where the image is in images/, else beside it."""
    parts = list(image.parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _regions(file: Path) -> tuple[tuple[Any, ...], list[int]]:
    """Read a label file: one polygon per line.

    Returns:
        The regions, and the number of each one's class.

    Raises:
        DatasetError: A line is damaged or is a box.
    """
    regions, classes = [], []
    for number, line in enumerate(read_text(file, remedy="export it again").splitlines(), 1):
        if not line.strip():
            continue
        try:
            label, *coordinates = line.split()
            polygon = [float(value) for value in coordinates]
            classes.append(int(label))
        except ValueError as error:
            raise DatasetError(
                f"{file}: line {number} is not a class and its polygon ({one_line(error, 80)})"
            ) from None
        if len(polygon) == 4:
            raise DatasetError(f"{file}: line {number} is a box, not a polygon; export segmentation labels")
        if len(polygon) < 6 or len(polygon) % 2:
            raise DatasetError(f"{file}: line {number} has {len(polygon)} coordinates, not three or more points")
        if not all(-1 <= value <= 2 for value in polygon):
            raise DatasetError(
                f"{file}: line {number} has coordinates far outside of 0 to 1; they must be fractions of the image's "
                "width and height"
            )
        regions.append([polygon])
    return tuple(regions), classes


def _names(listed: Any) -> dict[str, str]:
    """Return the names of the classes by their numbers; `listed` is a list, or a mapping from the number."""
    names = dict(enumerate(listed)) if isinstance(listed, list) else listed if isinstance(listed, dict) else {}
    return {str(key): one_line(value, 60) for key, value in names.items()}


FORMAT = DatasetFormat("YOLO", _recognizes, _read, suffixes=(".yaml", ".yml"), load=_load)
