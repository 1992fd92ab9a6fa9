"""Matches images and masks by their names.

A file's name is its path without the folders that tell the role, the split or the file format.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from condseg_sdk.data.names import (
    folder_role,
    loosely_numbered,
    normalize_name,
    numbered,
    split_of_folders,
    without_image_word,
    without_mask_word,
)
from condseg_sdk.data.pairs import DiscoveredPairs, MaskSource, MergedMask, Pair, Problem, Split, problems_of
from condseg_sdk.errors import DatasetError
from condseg_sdk.images.load import IMAGE_SUFFIXES

__all__ = ["Folder", "match_folders", "unchanged"]

MERGED = "with several masks, which were merged (number in brackets); if several readers drew them, keep one reader's"
BY_PLACE = "matched with the masks in its folder, whose names differ; check that they belong to it"
FORMATS = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)

Files: TypeAlias = dict[str, Path]
"""Files by the name by which images and masks are matched."""
Change: TypeAlias = Callable[[str], str]


@dataclass(frozen=True)
class Folder:
    """A folder that directly contains images or masks.

    Attributes:
        folders: Names of the folders from the dataset's folder down to it.
        files: Its image and array files, sorted.
    """

    folders: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def role(self) -> str | None:
        """What the folder contains, judging by its name: "images" or "masks"."""
        return next((role for name in reversed(self.folders) if (role := folder_role(name))), None)

    @property
    def split(self) -> Split | None:
        """The split that its name, or the name of a folder above it, stands for."""
        return split_of_folders(self.folders)

    @property
    def prefix(self) -> str:
        """Prefix of the names of its files: all folders except those that tell the role, split or file format."""
        says_role = next((name for name in reversed(self.folders) if folder_role(name)), None)
        says_split = next((name for name in reversed(self.folders) if split_of_folders([name])), None)
        kept = [name for name in self.folders if name not in (says_role, says_split) and name.lower() not in FORMATS]
        return "".join(f"{name}/" for name in kept)

    def __str__(self) -> str:
        return "/".join(self.folders) + "/" if self.folders else "./"


def match_folders(
    images: Sequence[Folder], masks: Sequence[Folder], problems: Sequence[Problem], layout: str
) -> DiscoveredPairs:
    """Match images and masks by name, split by split; masks in a folder without a split belong to all of them.

    Raises:
        DatasetError: No image has a mask with the same name.
    """
    for with_places in (True, False):  # False for archives unpacked into a folder named like the archive
        found: dict[Split | None, list[Pair]] = {}
        noticed = list(problems)
        merged: list[str] = []
        by_place: list[str] = []
        unmatched: list[Problem] = []
        used: set[Path] = set()
        seen: set[Path] = set()
        for split in dict.fromkeys(item.split for item in images):
            images_here, twice = _by_name((f for f in images if f.split == split), with_places)
            masks_here, twice_masks = _by_name((f for f in masks if f.split in (split, None)), with_places)
            matched, placed = _match(images_here, masks_here)
            sources = {name: tuple(masks_here[mask] for mask in several) for name, several in matched.items()}
            found[split] = [Pair(name, images_here[name], _source(sources[name])) for name in sorted(matched)]
            used.update(path for paths in sources.values() for path in paths)
            merged += [
                f"{images_here[name]} ({len(paths)})" for name, paths in sorted(sources.items()) if len(paths) > 1
            ]
            by_place += [str(images_here[name]) for name in placed]
            seen.update(masks_here.values())
            noticed += twice + twice_masks
            unmatched += _without_mask(images_here, matched)
        noticed += problems_of("warning", "image", MERGED, merged)
        noticed += problems_of("warning", "image", BY_PLACE, by_place)
        if used:
            break
    else:
        example = masks[0].files[0].name
        raise DatasetError(
            f"no image has a mask with the same name: images are named like {images[0].files[0].name}, masks like "
            f"{example}; name each mask like its image"
        )
    # A second mask with the same name is reported as such, not as a mask without an image.
    candidates = [path for item in masks for path in item.files if path in seen or item.split not in {*found, None}]
    left = [str(path) for path in candidates if path not in used]
    unmatched += problems_of(
        "error", "mask", "without an image with the same name; add the image or remove the mask", left
    )
    return DiscoveredPairs(found, layout, tuple(dict.fromkeys(noticed)), tuple(unmatched))


def _by_name(folders: Iterable[Folder], with_places: bool) -> tuple[Files, list[Problem]]:
    """Index files by name; if several files have the same name, return the first and a problem."""
    named: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for item in folders:
        for path in item.files:
            name = (item.prefix if with_places else "") + path.stem
            named[normalize_name(name)].append((name, path))
    again = [" and ".join(str(path) for _, path in files) for files in named.values() if len(files) > 1]
    message = "of several files (extension and case do not count); keep one of them, or pass one of their folders"
    return dict(files[0] for files in named.values()), problems_of("error", "name", message, again)


def unchanged(name: str) -> str:
    """Return a name as it is, for a comparison of whole names."""
    return name


# How names of images and of masks are changed before they are compared, the strictest comparison first.
COMPARISONS: tuple[tuple[Change, Change], ...] = (
    (unchanged, unchanged),
    (unchanged, without_mask_word),
    (without_image_word, without_mask_word),
    (without_image_word, unchanged),
)


def _match(images: Files, masks: Files) -> tuple[dict[str, list[str]], list[str]]:
    """Match names that are equal, or equal without the words for mask and image; an image may have several masks.

    Returns:
        Names of masks by the name of their image, and the names of images whose masks were found only by their folder.
    """
    matched: dict[str, list[str]] = {}
    left = dict.fromkeys(masks)
    for of_image, of_mask in COMPARISONS:
        free = {_key(name, of_mask): name for name in reversed(left)}
        for name in images:
            mask = None if name in matched else free.pop(_key(name, of_image), None)
            if mask is not None:
                matched[name] = [mask]
                del left[mask]
    for name, several in _numbered(images, matched, left).items():
        matched.setdefault(name, []).extend(several)
        for mask in several:
            del left[mask]
    placed = _of_one_place(images, matched, left)
    return {**matched, **placed}, sorted(placed)


def _numbered(images: Files, matched: Collection[str], left: Collection[str]) -> dict[str, list[str]]:
    """Match several masks of an image: x_mask_1 beside x_mask, or x_1 and x_2 if the image x has no other mask."""
    owners = {_key(name, change): name for change in (without_image_word, unchanged) for name in images}
    waiting = {normalize_name(name) for name in images if name not in matched}
    sure: dict[str, list[str]] = defaultdict(list)
    likely: dict[str, dict[int, str]] = defaultdict(dict)
    for mask in left:
        place = PurePosixPath(mask)
        found = numbered(place.name) or loosely_numbered(place.name)
        image = None if found is None else owners.get(normalize_name(str(place.parent / found[0])))
        if found is None or image is None:
            continue
        # scan_mask_1 does not belong to scan if there is a scan_1 without a mask.
        rivals = {normalize_name(str(place.parent / f"{found[0]}{between}{found[1]}")) for between in ("", *"_- .")}
        if (rivals - {normalize_name(image)}) & waiting:
            continue
        if numbered(place.name):
            sure[image].append(mask)
        elif image not in matched:
            likely[image][int(found[1])] = mask
    whole = {
        image: [several[number] for number in sorted(several)]
        for image, several in likely.items()
        if image not in sure and min(several) <= 1 and len(several) == max(several) - min(several) + 1
    }
    return {**sure, **whole}


def _of_one_place(images: Files, matched: Collection[str], left: Collection[str]) -> dict[str, list[str]]:
    """Match masks in a folder named after their image, or beside the only image of a folder if each image has one."""
    masks: dict[str, list[str]] = defaultdict(list)
    for mask in left:
        masks[normalize_name(str(PurePosixPath(mask).parent))].append(mask)
    places = {normalize_name(str(PurePosixPath(name).parent)) for name in images}
    is_folder_each = len(places) == len(images) and "." not in places
    found: dict[str, list[str]] = {}
    for name in images:
        if name not in matched:
            several = masks.get(normalize_name(name), [])
            if not several and is_folder_each:
                several = masks.get(normalize_name(str(PurePosixPath(name).parent)), [])
            if several:
                found[name] = several
    return found


def _source(paths: tuple[Path, ...]) -> MaskSource:
    return paths[0] if len(paths) == 1 else MergedMask(paths)


def _key(name: str, change: Change) -> str:
    place = PurePosixPath(name)
    return normalize_name(str(place.parent / change(place.name)))


def _without_mask(images: Files, matched: Collection[str]) -> list[Problem]:
    files = [str(path) for name, path in images.items() if name not in matched]
    remedy = "add an all-black mask where there is nothing to find, or remove the image"
    return problems_of("error", "image", f"without a mask with the same name; {remedy}", files)
