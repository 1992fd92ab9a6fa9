"""Reads nnU-Net datasets: imagesTr/ and labelsTr/ with a dataset.json that names the classes.

Version 2 maps names to values ("polyp": 1, or "lesion": [1, 2]), version 1 values to names ("1": "polyp").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condseg_sdk.data.formats.base import load_json
from condseg_sdk.data.names import normalize_name
from condseg_sdk.data.pairs import DiscoveredPairs, IndexedMask, Pair, Problem, Split, one_line, problems_of
from condseg_sdk.errors import CondsegError, DatasetError
from condseg_sdk.images.load import IMAGE_SUFFIXES

__all__ = ["is_nnunet", "read_nnunet"]

DATASET = "dataset.json"
PLACES: tuple[tuple[str, str, Split | None], ...] = (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test"))
BACKGROUND, IGNORE = "background", "ignore"


def is_nnunet(folder: Path) -> bool:
    """Return whether a folder is an nnU-Net dataset: it has imagesTr/ and a dataset.json with labels."""
    file = folder / DATASET
    if not ((folder / "imagesTr").is_dir() and file.is_file()):
        return False
    try:
        content = load_json(file)
    except CondsegError:
        return False
    return isinstance(content, dict) and "labels" in content and bool({"channel_names", "modality"} & content.keys())


def read_nnunet(folder: Path) -> DiscoveredPairs:
    """Find the pairs of an nnU-Net dataset; imagesTs/ is the test split if labelsTs/ exists.

    Args:
        folder: Folder for which `is_nnunet` is true.

    Raises:
        DatasetError: The images are not 2D, their channels are separate files, or no image has a label.
    """
    file = folder / DATASET
    content = load_json(file)
    ending = content.get("file_ending", "")
    if not isinstance(ending, str) or (ending and ending.lower() not in IMAGE_SUFFIXES):
        raise DatasetError(
            f"{file}: images of the type {one_line(repr(ending), 40)} are volumes, not 2D images; save their slices as "
            "PNG, and set file_ending to '.png'"
        )
    values = _values(content["labels"], file)
    pairs: dict[Split | None, list[Pair]] = {}
    unmatched: list[Problem] = []
    problems: list[Problem] = []
    for images, labels, split in PLACES:
        if (folder / labels).is_dir():
            found, missing = _pairs(folder / images, folder / labels, values)
            pairs[split] = found
            unmatched += missing
    if not any(pairs.values()):
        raise DatasetError(f"{folder}: no image in imagesTr has a label in labelsTr; labels are named CASE{ending}")
    ignored = [name for name, _ in _listed(content["labels"]) if normalize_name(name) == IGNORE]
    if ignored:
        message = f"{file.name} has pixels to ignore, which are read as background"
        problems.append(Problem("warning", message))
    return DiscoveredPairs(pairs, f"nnU-Net: {file.name} of {folder.name}", tuple(problems), tuple(unmatched))


def _listed(labels: Any) -> list[tuple[str, Any]]:
    """Return the mapping from names to values, as in version 2."""
    items = list(labels.items()) if isinstance(labels, Mapping) else []
    if items and all(isinstance(value, str) for _, value in items):  # version 1
        return [(value, int(key)) for key, value in items if key.isdecimal() and len(key) < 10]
    return items


def _values(labels: Any, file: Path) -> tuple[tuple[str, tuple[int, ...]], ...]:
    found = []
    for name, value in _listed(labels):
        several = value if isinstance(value, list) else [value]
        if not several or not all(type(number) is int and 0 <= number < 2**31 for number in several):
            shown = one_line(f"{name!r}: {value!r}", 60)
            raise DatasetError(f"{file}: the label {shown} is not a whole number or a list of them; correct it")
        if normalize_name(name) in (BACKGROUND, IGNORE):
            continue
        if 0 in several:
            raise DatasetError(f"{file}: the label {one_line(name, 60)} has the value 0 of the background; correct it")
        found.append((name, tuple(several)))
    if not found:
        raise DatasetError(f"{file} names no label but the background; add the labels of the masks, such as 'polyp': 1")
    return tuple(found)


def _pairs(
    images: Path, labels: Path, values: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[list[Pair], list[Problem]]:
    cases: dict[str, list[Path]] = defaultdict(list)
    for path in _files(images):
        match = re.fullmatch(r"(.+)_\d{4}", path.stem)
        cases[match[1] if match else path.stem].append(path)
    several = next((paths for paths in cases.values() if len(paths) > 1), None)
    if several is not None:
        raise DatasetError(
            f"{several[0]} and {several[1].name} are channels of one image; save them as one RGB image, CASE_0000.png"
        )
    masks = {path.stem: path for path in _files(labels)}
    pairs = [
        Pair(case, paths[0], IndexedMask(masks[case], values)) for case, paths in sorted(cases.items()) if case in masks
    ]
    alone = [str(paths[0]) for case, paths in cases.items() if case not in masks]
    left = [str(path) for case, path in masks.items() if case not in cases]
    return pairs, [
        *problems_of(
            "error", "image", f"without a label of the same name in {labels}; add it, or remove the image", alone
        ),
        *problems_of("error", "label", f"without an image in {images}; add it, or remove the label", left),
    ]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
