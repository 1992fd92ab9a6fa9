"""Finds masks stored as one file per class: in a folder per class, or with the class at the end of the file name.

The layouts are masks/polyp/1.png beside masks/tool/1.png, and masks/1_polyp.png beside masks/1_tool.png.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from condseg_sdk.data.matching import Folder
from condseg_sdk.data.names import is_mask_word, normalize_name
from condseg_sdk.data.pairs import DiscoveredPairs, MergedMask, Pair, Problem, Split, problems_of

__all__ = ["class_folders", "class_names"]

MAX_CLASSES = 50
NO_CLASS = re.compile(r"[\d\W_]*|.*(reader|observer|expert|annotator|rater|manual|doctor|grader).*", re.IGNORECASE)
"""Names that number masks, or say who drew them: the masks of several readers are not classes."""


class _ClassFile(NamedTuple):
    """A mask file, the name of the image it belongs to, its class and its split."""

    path: Path
    image: str
    label: str
    split: Split | None


def class_folders(
    images: Sequence[Folder], masks: Sequence[Folder], problems: Sequence[Problem]
) -> DiscoveredPairs | None:
    """Read masks from one folder per class; return None if the folders are not classes."""
    places = {normalize_name(item.prefix) for item in images}
    files: list[_ClassFile] = []
    for item in masks:
        place = PurePosixPath(item.prefix)
        if not item.prefix or normalize_name(item.prefix) in places or NO_CLASS.fullmatch(place.name):
            return None
        files += [_ClassFile(path, str(place.parent / path.stem), place.name, item.split) for path in item.files]
    return _matched(images, files, problems, "a folder of masks for each class")


def class_names(
    images: Sequence[Folder], masks: Sequence[Folder], problems: Sequence[Problem]
) -> DiscoveredPairs | None:
    """Read the class at the end of each mask's name; return None if the names do not have one."""
    stems = {normalize_name(path.stem) for item in images for path in item.files}
    files: list[_ClassFile] = []
    for item in masks:
        for path in item.files:
            parts = re.split(r"([_\-. ])", path.stem)
            cuts = ("".join(parts[:end]) for end in range(len(parts) - 2, 0, -2))
            stem = next((cut for cut in cuts if normalize_name(cut) in stems), None)
            label = "" if stem is None else path.stem[len(stem) + 1 :]
            if stem is None or NO_CLASS.fullmatch(label) or is_mask_word(label):
                return None
            files.append(_ClassFile(path, f"{item.prefix}{stem}", label, item.split))
    return _matched(images, files, problems, "masks named after their image and class")


def _matched(
    images: Sequence[Folder], files: Sequence[_ClassFile], problems: Sequence[Problem], layout: str
) -> DiscoveredPairs | None:
    """Match files with images; return None unless there are several classes and images with several of them."""
    labels = dict.fromkeys(file.label for file in files)
    pairs: dict[Split | None, list[Pair]] = {}
    used: set[Path] = set()
    most = 0
    unmatched: list[Problem] = []
    for split in dict.fromkeys(item.split for item in images):
        of_image: dict[str, list[_ClassFile]] = defaultdict(list)
        for file in files:
            if file.split in (split, None):
                of_image[normalize_name(file.image)].append(file)
        named = [(f"{item.prefix}{path.stem}", path) for item in images if item.split == split for path in item.files]
        found = {name: of_image.get(normalize_name(name), []) for name, _ in named}
        pairs[split] = [Pair(name, path, _merged(found[name])) for name, path in sorted(named) if found[name]]
        used.update(file.path for several in found.values() for file in several)
        most = max(most, *map(len, found.values()))
        unmatched += _without(path for name, path in named if not found[name])
    if not 2 <= len(labels) <= MAX_CLASSES or most < 2:
        return None
    left = [str(file.path) for file in files if file.path not in used]
    unmatched += problems_of(
        "error", "mask", "without an image of the same name; add the image or remove the mask", left
    )
    return DiscoveredPairs(pairs, f"{layout} ({', '.join(sorted(labels))})", tuple(problems), tuple(unmatched))


def _merged(files: Sequence[_ClassFile]) -> MergedMask:
    return MergedMask(tuple(file.path for file in files), tuple(file.label for file in files))


def _without(paths: Iterable[Path]) -> list[Problem]:
    remedy = "add an all-black mask of a class where there is nothing to find, or remove the image"
    return problems_of("error", "image", f"without a mask of any class; {remedy}", map(str, paths))
