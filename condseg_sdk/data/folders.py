"""Finds pairs in folders of images and masks, no matter how the folders are named.

Every folder with image files gets a role (images or masks) and a split (train, validation, test) from the words in its
name, or in the names of the folders above it. The rest of the path is part of the image's name.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from condseg_sdk.data.annotations import read_annotation_file, read_annotations
from condseg_sdk.data.arrays import ARRAY_SUFFIXES
from condseg_sdk.data.class_files import class_folders, class_names
from condseg_sdk.data.formats import ANNOTATION_SUFFIXES, FORMAT_NAMES
from condseg_sdk.data.masks import MASK_SUFFIXES
from condseg_sdk.data.matching import Folder, match_folders, unchanged
from condseg_sdk.data.names import (
    is_mask_word,
    loosely_numbered,
    normalize_name,
    numbered,
    split_of_word,
    without_image_word,
    without_mask_word,
)
from condseg_sdk.data.nnunet import is_nnunet, read_nnunet
from condseg_sdk.data.pairs import DiscoveredPairs, RegionMask, problems_of
from condseg_sdk.data.tables import names_pairs
from condseg_sdk.errors import DatasetError
from condseg_sdk.files import relative_to
from condseg_sdk.images.load import IMAGE_SUFFIXES
from condseg_sdk.walk import Walk, left_out_kind, walk_folder

__all__ = ["read_folder"]

NOT_IMAGES = ("_superpixels",)  # what ISIC puts beside its images


def read_folder(folder: Path, masks: Path | None = None) -> DiscoveredPairs:
    """Find the pairs in one folder, or in one folder of images and one of masks.

    Args:
        folder: Folder of images and masks, or only of images.
        masks: Folder of masks or annotation files, or an annotation file, outside of `folder`.

    Raises:
        DatasetError: A folder is missing or contains no images or no masks, or no image has a mask.
    """
    for path in (folder, masks):
        if path is not None and not os.path.exists(path):  # noqa: PTH110 - unlike pathlib, it answers for any string
            raise DatasetError(f"{path} does not exist; check the path{relative_to(path)}")
    if masks is None and is_nnunet(folder):
        return read_nnunet(folder)
    if masks is not None and masks.is_file():
        return read_annotation_file(masks, folder=masks.parent, images=folder)
    if masks is not None:
        return _two_places(folder, masks)
    walk = _walk(folder)
    folders = _folders(folder, walk)
    mask_folders = [item for item in folders if item.role == "masks"]
    if mask_folders:
        return _with_left_out(_apart(folder, folders, mask_folders), walk)
    beside = _side_by_side(folders)
    if beside is not None:
        return _with_left_out(beside, walk)
    found = read_annotations(_files(walk, *ANNOTATION_SUFFIXES), folder=folder)
    if found is None:
        _raise_nothing(folder, folders, walk)
    return _with_left_out(found, walk)


def _two_places(folder: Path, masks: Path) -> DiscoveredPairs:
    walk, mask_walk = _walk(folder), _walk(masks)
    mask_folders = _folders(masks, mask_walk)
    if not mask_folders:
        found = read_annotations(_files(mask_walk, *ANNOTATION_SUFFIXES), folder=masks, images=folder)
        if found is not None:
            return _with_left_out(found, walk)
        raise DatasetError(
            f"{masks} contains no masks{_left_out_words(mask_walk)}; masks are files named "
            f"{', '.join(sorted(MASK_SUFFIXES))}"
        )
    folders = _folders(folder, walk, leave_out=masks)
    return _with_left_out(_apart(folder, folders, mask_folders, f"images in {folder}, masks in {masks}"), walk)


def _walk(folder: Path) -> Walk:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: a dataset needs images/ and masks/ with matching names")
    return walk_folder(folder)


def _files(walk: Walk, *suffixes: str) -> list[Path]:
    return [path for path in walk.files if path.suffix.lower() in suffixes]


def _with_left_out(found: DiscoveredPairs, walk: Walk) -> DiscoveredPairs:
    masks = [pair.mask for pairs in found.pairs.values() for pair in pairs]
    used = {mask.file.suffix.lower() for mask in masks if isinstance(mask, RegionMask)}
    if used:
        used.update(ANNOTATION_SUFFIXES)
    return replace(found, left_out=_left_out(walk, used).summary())


def _left_out(walk: Walk, used: Collection[str] = ()) -> Walk:
    """Return the files that are neither images nor masks, and do not have one of the used annotation suffixes."""
    known = MASK_SUFFIXES.union(used)
    others = [path for path in walk.files if path.suffix.lower() not in known]
    kept = [path for path in others if not (path.suffix.lower() == ".txt" and split_of_word(path.stem))]  # lists
    superpixels = sum(path.stem.endswith(NOT_IMAGES) for path in walk.files if path.suffix.lower() in MASK_SUFFIXES)
    return Walk(
        [],
        walk.left_out + Counter(left_out_kind(path.name) for path in kept) + Counter({"superpixel file": superpixels}),
    )


def _left_out_words(walk: Walk) -> str:
    summary = _left_out(walk).summary()
    return f" (left out: {summary})" if summary else ""


def _folders(root: Path, walk: Walk, *, leave_out: Path | None = None) -> list[Folder]:
    """List the folders below `root`, itself included, that directly contain images or arrays."""
    files: dict[Path, list[Path]] = defaultdict(list)
    for path in walk.files:
        if path.suffix.lower() in MASK_SUFFIXES and not path.stem.endswith(NOT_IMAGES):
            files[path.parent].append(path)
    outside = None if leave_out is None else leave_out.resolve()
    return [
        Folder(path.relative_to(root).parts, tuple(items))
        for path, items in sorted(files.items())
        if outside is None or not path.resolve().is_relative_to(outside)
    ]


def _apart(
    root: Path, folders: Sequence[Folder], masks: Sequence[Folder], layout: str | None = None
) -> DiscoveredPairs:
    """Read images and masks in separate folders; folders of unknown role contain the images if no others do."""
    candidates = [item for item in _images_only(folders) if item.role != "masks"]
    images = [item for item in candidates if item.role == "images"] or candidates
    # A test split as competitions publish it has only images.
    masked_splits = {item.split for item in masks}
    images = [item for item in images if item.split != "test" or masked_splits & {"test", None}]
    if not images:
        raise DatasetError(f"{root} contains masks in {masks[0]} but no images; put them into a folder named images/")
    chosen = set(images)
    unused = [str(item) for item in candidates if item not in chosen]
    message = "not used, since the name does not match a folder of images with masks"
    problems = problems_of("warning", "folder", message, unused)
    arrays = [str(path) for item in folders if item.role != "masks" for path in item.files if _is_array(path)]
    problems += problems_of("warning", "array", "outside of the folders of masks, not used; save images as PNG", arrays)
    by_class = class_folders(images, masks, problems)
    if by_class is not None:
        return by_class
    try:
        return match_folders(
            images, masks, problems, layout or f"folders {_shown(images)} with masks in {_shown(masks)}"
        )
    except DatasetError:
        by_class = class_names(images, masks, problems)
        if by_class is None:
            raise
        return by_class


def _is_array(path: Path) -> bool:
    return path.suffix.lower() in ARRAY_SUFFIXES


def _images_only(folders: Iterable[Folder]) -> list[Folder]:
    kept = [replace(f, files=tuple(p for p in f.files if p.suffix.lower() in IMAGE_SUFFIXES)) for f in folders]
    return [item for item in kept if item.files]


def _shown(folders: Sequence[Folder]) -> str:
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return ", ".join(map(str, folders[:3])) + more


def _side_by_side(folders: Sequence[Folder]) -> DiscoveredPairs | None:
    """Read masks beside their images, marked by a word in their names: train_1.bmp and train_1_anno.bmp."""
    images, masks = [], []
    for item in folders:
        marked = dict.fromkeys(_marked(item.files))
        if marked:
            masks.append(replace(item, files=tuple(marked)))
        images.append(replace(item, files=tuple(path for path in item.files if path not in marked)))
    images = _images_only(images)
    if not (images and masks):
        return None
    return match_folders(images, masks, [], f"masks beside their images, named like {masks[0].files[0].name}")


def _marked(files: Sequence[Path]) -> list[Path]:
    """Return the files that a word in their names marks as masks, if any of them has an image."""
    words_alone = [path for path in files if is_mask_word(path.stem)]
    if words_alone and len(files) - len(words_alone) == 1:  # a folder for each image: image.png, mask_1.png, mask_2.png
        return words_alone
    stems = {normalize_name(change(path.stem)) for path in files for change in (unchanged, without_image_word)}
    bases = {path: base for path in files if (base := _base(path.stem, stems)) != normalize_name(path.stem)}
    found = {*bases.values()}
    if not stems & found:
        return []
    # "a_mask" beside "a_mask_gt", without "a", is an image.
    return [path for path, base in bases.items() if base in stems or normalize_name(path.stem) not in found]


def _base(stem: str, stems: Collection[str]) -> str:
    """Return what a mask's name shares with its image's, normalized; the name itself if no word means mask."""
    found = numbered(stem)
    base = normalize_name(found[0] if found else without_mask_word(stem))
    loosely = loosely_numbered(stem)
    if loosely and base != normalize_name(stem) and base not in stems and normalize_name(loosely[0]) in stems:
        return normalize_name(loosely[0])
    return base


def _raise_nothing(folder: Path, folders: Sequence[Folder], walk: Walk) -> NoReturn:
    """Raise an error that says why a folder is not a dataset, with a remedy."""
    if not folders:
        raise DatasetError(
            f"{folder} contains no images{_left_out_words(walk)}; images are files named "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    remedy = "put them into a folder named masks/, name them like their image with _mask, or pass masks= (--masks)"
    tables = (path for path in _files(walk, ".csv", ".tsv") if names_pairs(path))
    table = next(tables, None)
    if table is not None:
        remedy = f"{table} lists them: pass that file instead of the folder"
    elif others := _files(walk, ".json", ".xml"):
        unread = f"{others[0]} is in no format that is read ({FORMAT_NAMES})"
        remedy = f"{unread}; export the annotations as COCO, or {remedy}"
    raise DatasetError(
        f"{folder} contains images, such as {folders[0].files[0].relative_to(folder)}, but no masks were recognized"
        f"{_left_out_words(walk)}: {remedy}"
    )
