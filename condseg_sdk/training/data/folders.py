"""Folders of images and masks -> pairs, whatever the folders are called.

Every folder that holds image files gets a role (images or masks) and a part (train, validation, test) from the words in
its name, or in those of the folders above it. What is left of the path is part of the image's name.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from condseg_sdk.errors import DatasetError
from condseg_sdk.images import IMAGE_SUFFIXES
from condseg_sdk.training.data.coco import is_coco, read_coco
from condseg_sdk.training.data.masks import MASK_SUFFIXES
from condseg_sdk.training.data.names import (
    fold,
    folder_role,
    split_word,
    without_image_word,
    without_mask_word,
)
from condseg_sdk.training.data.pairs import Found, Pair, Part, Problem, problems_of

__all__ = ["read_folder"]

MAX_DEPTH = 4  # folders below the one given
NOT_IMAGES = ("_superpixels",)  # what ISIC puts beside its images
FORMATS = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)

Files: TypeAlias = dict[str, Path]  # by the name that joins images and masks


@dataclass(frozen=True)
class Folder:
    """A folder that directly holds images or masks.

    Attributes:
        parts: its path below the set's folder.
        files: its image and array files, sorted.
    """

    parts: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def role(self) -> str | None:
        return next((role for name in reversed(self.parts) if (role := folder_role(name))), None)

    @property
    def part(self) -> Part | None:
        return split_word(self.parts)

    @property
    def prefix(self) -> str:
        """What its place adds to its files' names: all but the folders that say role, part or file format."""
        says_role = next((name for name in reversed(self.parts) if folder_role(name)), None)
        says_part = next((name for name in reversed(self.parts) if split_word([name])), None)
        kept = [name for name in self.parts if name not in (says_role, says_part) and name.lower() not in FORMATS]
        return "".join(f"{name}/" for name in kept)

    def __str__(self) -> str:
        return "/".join(self.parts) + "/" if self.parts else "./"


def read_folder(folder: Path, masks: Path | None = None) -> Found:
    """Find the pairs of a set that stands in one folder, or in one for images and one for masks.

    Args:
        folder: holds images and masks, or just images.
        masks: a folder of masks, or a COCO file, that stands elsewhere.

    Raises:
        DatasetError: a folder is missing, holds no images or no masks, or no image has a mask.
    """
    for path in (folder, masks):
        if path is not None and not path.exists():
            raise DatasetError(f"{path} does not exist; check the path (we are in {Path.cwd()})")
    if masks is not None and masks.is_file():
        return read_coco([masks], folder=masks.parent, images=folder)
    if masks is not None:
        mask_folders = _folders(masks)
        if not mask_folders:
            raise DatasetError(f"{masks} holds no masks; masks are files named {', '.join(sorted(MASK_SUFFIXES))}")
        return _apart(folder, _folders(folder, leave_out=masks), mask_folders, f"images in {folder}, masks in {masks}")
    folders = _folders(folder)
    mask_folders = [item for item in folders if item.role == "masks"]
    if mask_folders:
        return _apart(folder, folders, mask_folders)
    return _side_by_side(folders) or _coco(folder) or _nothing(folder, folders)


def _walk(folder: Path) -> Iterator[Path]:
    """Files down to MAX_DEPTH, sorted, links followed; hidden ones and what a Mac leaves in archives are left out."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: a training set needs images/ and masks/ with matching names")
    for base, names, files in os.walk(folder, followlinks=True):
        depth = len(Path(base).relative_to(folder).parts)
        kept = sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")
        names[:] = kept if depth < MAX_DEPTH else []
        yield from (Path(base) / name for name in sorted(files) if not name.startswith("."))


def _folders(root: Path, *, leave_out: Path | None = None) -> list[Folder]:
    """The folders below `root`, itself included, that directly hold images or arrays."""
    files: dict[Path, list[Path]] = defaultdict(list)
    for path in _walk(root):
        if path.suffix.lower() in MASK_SUFFIXES and not path.stem.endswith(NOT_IMAGES):
            files[path.parent].append(path)
    outside = None if leave_out is None else leave_out.resolve()
    return [
        Folder(path.relative_to(root).parts, tuple(items))
        for path, items in sorted(files.items())
        if outside is None or not path.resolve().is_relative_to(outside)
    ]


def _apart(root: Path, folders: Sequence[Folder], masks: Sequence[Folder], layout: str | None = None) -> Found:
    """Images and masks in folders of their own; folders whose names say nothing hold the images if no others do."""
    candidates = [item for item in _images_only(folders) if item.role != "masks"]
    images = [item for item in candidates if item.role == "images"] or candidates
    # A test part as competitions publish it has images alone.
    masked_parts = {item.part for item in masks}
    images = [item for item in images if item.part != "test" or masked_parts & {"test", None}]
    if not images:
        raise DatasetError(f"{root} holds masks in {masks[0]} but no images; put them into a folder named images/")
    unused = [str(item) for item in candidates if item not in images]
    message = "not used, since nothing says that it holds images with masks"
    problems = problems_of("warning", "folder", message, unused)
    return _pair(images, masks, problems, layout or f"folders {_shown(images)} with masks in {_shown(masks)}")


def _images_only(folders: Iterable[Folder]) -> list[Folder]:
    kept = [replace(f, files=tuple(p for p in f.files if p.suffix.lower() in IMAGE_SUFFIXES)) for f in folders]
    return [item for item in kept if item.files]


def _shown(folders: Sequence[Folder]) -> str:
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return ", ".join(map(str, folders[:3])) + more


def _side_by_side(folders: Sequence[Folder]) -> Found | None:
    """Masks beside their images, told by a word in their names: train_1.bmp and train_1_anno.bmp."""
    images, masks = [], []
    for item in folders:
        marked = _marked(item.files)
        if marked:
            masks.append(replace(item, files=tuple(marked)))
        images.append(replace(item, files=tuple(path for path in item.files if path not in marked)))
    images = _images_only(images)
    if not (images and masks):
        return None
    return _pair(images, masks, [], f"masks beside their images, named like {masks[0].files[0].name}")


def _marked(files: Sequence[Path]) -> list[Path]:
    """The masks among files, told by a word; also those that lost their image, once others have shown the word."""
    bases = {path: fold(without_mask_word(path.stem)) for path in files if without_mask_word(path.stem) != path.stem}
    stems = {fold(path.stem) for path in files}
    if not stems & {*bases.values()}:
        return []
    # "a_mask" beside "a_mask_gt", without "a", is an image.
    return [path for path, base in bases.items() if base in stems or fold(path.stem) not in bases.values()]


def _coco(folder: Path) -> Found | None:
    files = [path for path in _walk(folder) if path.suffix.lower() == ".json" and is_coco(path)]
    return read_coco(files, folder=folder) if files else None


def _nothing(folder: Path, folders: Sequence[Folder]) -> Found:
    if not folders:
        raise DatasetError(f"{folder} holds no images; images are files named {', '.join(sorted(IMAGE_SUFFIXES))}")
    remedy = "put them into a folder named masks/, name them like their image with _mask, or give masks= (--masks)"
    lists = [path for path in _walk(folder) if path.suffix.lower() in (".csv", ".tsv", ".json")]
    if lists:
        remedy = f"if {lists[0]} lists them, give that file instead of the folder; else {remedy}"
    raise DatasetError(
        f"{folder} holds images, such as {folders[0].files[0].relative_to(folder)}, but no masks were recognised: "
        f"{remedy}"
    )


def _pair(images: Sequence[Folder], masks: Sequence[Folder], problems: Sequence[Problem], layout: str) -> Found:
    """Join images and masks by name, part by part; masks in a folder of no part serve all of them."""
    for with_places in (True, False):  # without, for archives unpacked into a folder of the archive's name
        found: dict[Part | None, list[Pair]] = {}
        noticed = list(problems)
        unmatched: list[Problem] = []
        used: set[Path] = set()
        seen: set[Path] = set()
        for part in dict.fromkeys(item.part for item in images):
            images_here, twice = _by_name((f for f in images if f.part == part), with_places)
            masks_here, twice_masks = _by_name((f for f in masks if f.part in (part, None)), with_places)
            matched = _match(images_here, masks_here)
            found[part] = [Pair(name, images_here[name], masks_here[matched[name]]) for name in sorted(matched)]
            used.update(masks_here[name] for name in matched.values())
            seen.update(masks_here.values())
            noticed += twice + twice_masks
            unmatched += _without_mask(images_here, matched)
        if used:
            break
    else:
        example = masks[0].files[0].name
        raise DatasetError(
            f"no image has a mask of the same name: images are named like {images[0].files[0].name}, masks like "
            f"{example}; name each mask like its image"
        )
    # A second mask of one name is reported as that, not as a mask without an image.
    candidates = [path for item in masks for path in item.files if path in seen or item.part not in {*found, None}]
    left = [str(path) for path in candidates if path not in used]
    unmatched += problems_of("error", "mask", "without an image of its name; add the image or take the mask out", left)
    return Found(found, layout, tuple(dict.fromkeys(noticed)), tuple(unmatched))


def _by_name(folders: Iterable[Folder], with_places: bool) -> tuple[Files, list[Problem]]:
    """Files by name; of several with one name the first, and a problem."""
    named: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for item in folders:
        for path in item.files:
            name = (item.prefix if with_places else "") + path.stem
            named[fold(name)].append((name, path))
    again = [" and ".join(str(path) for _, path in files) for files in named.values() if len(files) > 1]
    message = "of several files (extension and case do not count); keep one of them, or give one of their folders"
    return dict(files[0] for files in named.values()), problems_of("error", "name", message, again)


def _plain(name: str) -> str:
    return name


Change: TypeAlias = Callable[[str], str]
# How names are compared, the strictest first: (image's, mask's).
COMPARISONS: tuple[tuple[Change, Change], ...] = (
    (_plain, _plain),
    (_plain, without_mask_word),
    (without_image_word, without_mask_word),
    (without_image_word, _plain),
)


def _match(images: Files, masks: Files) -> dict[str, str]:
    """Image name -> mask name: alike, or alike without the words that say mask and image."""
    matched: dict[str, str] = {}
    taken: set[str] = set()
    for of_image, of_mask in COMPARISONS:
        free = {_key(name, of_mask): name for name in reversed(masks) if name not in taken}
        for name in images:
            mask = None if name in matched else free.pop(_key(name, of_image), None)
            if mask is not None:
                matched[name] = mask
                taken.add(mask)
    return matched


def _key(name: str, change: Change) -> str:
    place = PurePosixPath(name)
    return fold(str(place.parent / change(place.name)))


def _without_mask(images: Files, matched: Mapping[str, str]) -> list[Problem]:
    files = [str(path) for name, path in images.items() if name not in matched]
    remedy = "add an all-black mask where there is nothing to find, or take the image out"
    return problems_of("error", "image", f"without a mask of its name; {remedy}", files)
