"""Folders of images and masks -> pairs, whatever the folders are called.

Every folder that holds image files gets a role (images or masks) and a part (train, validation, test) from the words in
its name, or in those of the folders above it. What is left of the path is part of the image's name.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NoReturn, TypeAlias

from condseg_sdk.data.annotations import read_annotation_file, read_annotations
from condseg_sdk.data.arrays import ARRAY_SUFFIXES
from condseg_sdk.data.formats.tables import names_pairs
from condseg_sdk.data.masks import MASK_SUFFIXES
from condseg_sdk.data.names import (
    folder_role,
    is_mask_word,
    loosely_numbered,
    normalize_name,
    numbered,
    part_of,
    split_word,
    without_image_word,
    without_mask_word,
)
from condseg_sdk.data.pairs import DiscoveredPairs, MaskSource, MergedMask, Pair, Problem, Split, problems_of
from condseg_sdk.errors import DatasetError
from condseg_sdk.files import relative_to
from condseg_sdk.images.load import IMAGE_SUFFIXES
from condseg_sdk.walk import Walk, left_out_kind, walk_folder

__all__ = ["read_folder"]

NOT_IMAGES = ("_superpixels",)  # what ISIC puts beside its images
MERGED = (
    "with several masks, which were merged (in brackets how many); if they are of several readers, keep those of one"
)
BY_PLACE = "joined with the masks of its folder, whose names are others; check that they belong to it"
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
    def part(self) -> Split | None:
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


def read_folder(folder: Path, masks: Path | None = None) -> DiscoveredPairs:
    """Find the pairs of a set that stands in one folder, or in one for images and one for masks.

    Args:
        folder: holds images and masks, or just images.
        masks: a folder of masks or annotation files, or an annotation file, that stands elsewhere.

    Raises:
        DatasetError: a folder is missing, holds no images or no masks, or no image has a mask.
    """
    for path in (folder, masks):
        if path is not None and not os.path.exists(path):  # noqa: PTH110 - unlike pathlib, it answers for any string
            raise DatasetError(f"{path} does not exist; check the path{relative_to(path)}")
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
    found = read_annotations(_files(walk, ".json"), folder=folder)
    if found is None:
        _raise_nothing(folder, folders, walk)
    return _with_left_out(found, walk, used=".json")


def _two_places(folder: Path, masks: Path) -> DiscoveredPairs:
    walk, mask_walk = _walk(folder), _walk(masks)
    mask_folders = _folders(masks, mask_walk)
    if not mask_folders:
        found = read_annotations(_files(mask_walk, ".json"), folder=masks, images=folder)
        if found is not None:
            return _with_left_out(found, walk)
        raise DatasetError(
            f"{masks} holds no masks{_left_out_words(mask_walk)}; masks are files named "
            f"{', '.join(sorted(MASK_SUFFIXES))}"
        )
    folders = _folders(folder, walk, leave_out=masks)
    return _with_left_out(_apart(folder, folders, mask_folders, f"images in {folder}, masks in {masks}"), walk)


def _walk(folder: Path) -> Walk:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: a training set needs images/ and masks/ with matching names")
    return walk_folder(folder)


def _files(walk: Walk, *suffixes: str) -> list[Path]:
    return [path for path in walk.files if path.suffix.lower() in suffixes]


def _with_left_out(found: DiscoveredPairs, walk: Walk, *, used: str | None = None) -> DiscoveredPairs:
    return replace(found, left_out=_left_out(walk, used).summary())


def _left_out(walk: Walk, used: str | None = None) -> Walk:
    """What of a walk is neither an image nor a mask nor, if given, of the suffix that was used."""
    others = [path for path in walk.files if path.suffix.lower() not in MASK_SUFFIXES and path.suffix.lower() != used]
    kept = [path for path in others if not (path.suffix.lower() == ".txt" and part_of(path.stem))]  # lists
    superpixels = sum(path.stem.endswith(NOT_IMAGES) for path in walk.files if path.suffix.lower() in MASK_SUFFIXES)
    return Walk(
        [],
        walk.left_out + Counter(left_out_kind(path.name) for path in kept) + Counter({"superpixel file": superpixels}),
    )


def _left_out_words(walk: Walk) -> str:
    summary = _left_out(walk).summary()
    return f" (left out: {summary})" if summary else ""


def _folders(root: Path, walk: Walk, *, leave_out: Path | None = None) -> list[Folder]:
    """The folders below `root`, itself included, that directly hold images or arrays."""
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
    """Images and masks in folders of their own; folders whose names say nothing hold the images if no others do."""
    candidates = [item for item in _images_only(folders) if item.role != "masks"]
    images = [item for item in candidates if item.role == "images"] or candidates
    # A test part as competitions publish it has images alone.
    masked_parts = {item.part for item in masks}
    images = [item for item in images if item.part != "test" or masked_parts & {"test", None}]
    if not images:
        raise DatasetError(f"{root} holds masks in {masks[0]} but no images; put them into a folder named images/")
    chosen = set(images)
    unused = [str(item) for item in candidates if item not in chosen]
    message = "not used, since nothing says that it holds images with masks"
    problems = problems_of("warning", "folder", message, unused)
    arrays = [str(path) for item in folders if item.role != "masks" for path in item.files if _is_array(path)]
    problems += problems_of("warning", "array", "outside of the folders of masks, not used; save images as PNG", arrays)
    return _pair(images, masks, problems, layout or f"folders {_shown(images)} with masks in {_shown(masks)}")


def _is_array(path: Path) -> bool:
    return path.suffix.lower() in ARRAY_SUFFIXES


def _images_only(folders: Iterable[Folder]) -> list[Folder]:
    kept = [replace(f, files=tuple(p for p in f.files if p.suffix.lower() in IMAGE_SUFFIXES)) for f in folders]
    return [item for item in kept if item.files]


def _shown(folders: Sequence[Folder]) -> str:
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return ", ".join(map(str, folders[:3])) + more


def _side_by_side(folders: Sequence[Folder]) -> DiscoveredPairs | None:
    """Masks beside their images, told by a word in their names: train_1.bmp and train_1_anno.bmp."""
    images, masks = [], []
    for item in folders:
        marked = dict.fromkeys(_marked(item.files))
        if marked:
            masks.append(replace(item, files=tuple(marked)))
        images.append(replace(item, files=tuple(path for path in item.files if path not in marked)))
    images = _images_only(images)
    if not (images and masks):
        return None
    return _pair(images, masks, [], f"masks beside their images, named like {masks[0].files[0].name}")


def _marked(files: Sequence[Path]) -> list[Path]:
    """The masks among files, told by a word; also those that lost their image, once others have shown the word."""
    words_alone = [path for path in files if is_mask_word(path.stem)]
    if words_alone and len(files) - len(words_alone) == 1:  # a folder for each image: image.png, mask_1.png, mask_2.png
        return words_alone
    stems = {normalize_name(change(path.stem)) for path in files for change in (_plain, without_image_word)}
    bases = {path: base for path in files if (base := _base(path.stem, stems)) != normalize_name(path.stem)}
    found = {*bases.values()}
    if not stems & found:
        return []
    # "a_mask" beside "a_mask_gt", without "a", is an image.
    return [path for path, base in bases.items() if base in stems or normalize_name(path.stem) not in found]


def _base(stem: str, stems: Collection[str]) -> str:
    """What a mask's name has in common with its image's, folded; the name itself where no word says mask."""
    found = numbered(stem)
    base = normalize_name(found[0] if found else without_mask_word(stem))
    loosely = loosely_numbered(stem)
    if loosely and base != normalize_name(stem) and base not in stems and normalize_name(loosely[0]) in stems:
        return normalize_name(loosely[0])
    return base


def _raise_nothing(folder: Path, folders: Sequence[Folder], walk: Walk) -> NoReturn:
    """Say why a folder is no training set, with a remedy that was tried."""
    if not folders:
        raise DatasetError(
            f"{folder} holds no images{_left_out_words(walk)}; images are files named "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    remedy = "put them into a folder named masks/, name them like their image with _mask, or give masks= (--masks)"
    tables = (path for path in _files(walk, ".csv", ".tsv") if names_pairs(path))
    table = next(tables, None)
    if table is not None:
        remedy = f"{table} lists them: give that file instead of the folder"
    elif others := _files(walk, ".json", ".xml"):
        unread = f"{others[0]} is of no format that is read (COCO, LabelMe or VIA)"
        remedy = f"{unread}; export the annotations as COCO, or {remedy}"
    raise DatasetError(
        f"{folder} holds images, such as {folders[0].files[0].relative_to(folder)}, but no masks were recognised"
        f"{_left_out_words(walk)}: {remedy}"
    )


def _pair(
    images: Sequence[Folder], masks: Sequence[Folder], problems: Sequence[Problem], layout: str
) -> DiscoveredPairs:
    """Join images and masks by name, part by part; masks in a folder of no part serve all of them."""
    for with_places in (True, False):  # without, for archives unpacked into a folder of the archive's name
        found: dict[Split | None, list[Pair]] = {}
        noticed = list(problems)
        merged: list[str] = []
        by_place: list[str] = []
        unmatched: list[Problem] = []
        used: set[Path] = set()
        seen: set[Path] = set()
        for part in dict.fromkeys(item.part for item in images):
            images_here, twice = _by_name((f for f in images if f.part == part), with_places)
            masks_here, twice_masks = _by_name((f for f in masks if f.part in (part, None)), with_places)
            matched, placed = _match(images_here, masks_here)
            sources = {name: tuple(masks_here[mask] for mask in several) for name, several in matched.items()}
            found[part] = [Pair(name, images_here[name], _source(sources[name])) for name in sorted(matched)]
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
            f"no image has a mask of the same name: images are named like {images[0].files[0].name}, masks like "
            f"{example}; name each mask like its image"
        )
    # A second mask of one name is reported as that, not as a mask without an image.
    candidates = [path for item in masks for path in item.files if path in seen or item.part not in {*found, None}]
    left = [str(path) for path in candidates if path not in used]
    unmatched += problems_of("error", "mask", "without an image of its name; add the image or take the mask out", left)
    return DiscoveredPairs(found, layout, tuple(dict.fromkeys(noticed)), tuple(unmatched))


def _by_name(folders: Iterable[Folder], with_places: bool) -> tuple[Files, list[Problem]]:
    """Files by name; of several with one name the first, and a problem."""
    named: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for item in folders:
        for path in item.files:
            name = (item.prefix if with_places else "") + path.stem
            named[normalize_name(name)].append((name, path))
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


def _match(images: Files, masks: Files) -> tuple[dict[str, list[str]], list[str]]:
    """Image name -> mask names: alike, or alike without the words that say mask and image; of some images several.

    Returns:
        The matches, and the names of those images whose masks were found by their place alone.
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
    """Masks that are one of several of an image: x_mask_1 beside x_mask; x_1 and x_2 where the image x has no other."""
    owners = {_key(name, change): name for change in (without_image_word, _plain) for name in images}
    waiting = {normalize_name(name) for name in images if name not in matched}
    sure: dict[str, list[str]] = defaultdict(list)
    likely: dict[str, dict[int, str]] = defaultdict(dict)
    for mask in left:
        place = PurePosixPath(mask)
        found = numbered(place.name) or loosely_numbered(place.name)
        image = None if found is None else owners.get(normalize_name(str(place.parent / found[0])))
        if found is None or image is None:
            continue
        # scan_mask_1 is no mask of scan, if there is a scan_1 without a mask.
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
    """Masks in a folder named after their image, or beside the one image of a folder, where each image has a folder."""
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
    remedy = "add an all-black mask where there is nothing to find, or take the image out"
    return problems_of("error", "image", f"without a mask of its name; {remedy}", files)
