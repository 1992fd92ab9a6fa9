"""Reads pairs from annotation files: recognizes the format, and searches for the images that a file describes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from condseg_sdk.data.formats import FORMAT_NAMES, FORMATS
from condseg_sdk.data.formats.base import DatasetFormat
from condseg_sdk.data.image_search import ImageSearch
from condseg_sdk.data.names import duplicate_names, split_of_folders, unique_names
from condseg_sdk.data.pairs import DiscoveredPairs, Pair, Problem, RegionMask, Split, one_line, problems_of
from condseg_sdk.errors import DatasetError

__all__ = ["read_annotation_file", "read_annotations"]


def read_annotation_file(file: Path, *, folder: Path, images: Path | None = None) -> DiscoveredPairs:
    """Read the pairs of one annotation file that was given by name.

    Args:
        file: Path of the annotation file.
        folder: Folder that contains it.
        images: Folder of the images; None to search around the file.

    Raises:
        DatasetError: The format of the file is unknown, or its images are not found.
    """
    found = read_annotations([file], folder=folder, images=images, alone=True)
    if found is None:
        raise DatasetError(
            f"{file} is not an annotation file of {FORMAT_NAMES} (COCO has the lists 'images' and 'annotations'); "
            "export the annotations as COCO"
        )
    if found.layout.startswith(tuple(f"{form.name}:" for form in FORMATS if form.one_image)):
        return replace(found, layout=f"{found.layout}, which describes one image (pass its folder for all of them)")
    return found


def read_annotations(
    files: Sequence[Path], *, folder: Path, images: Path | None = None, alone: bool = False
) -> DiscoveredPairs | None:
    """Read the pairs of the files that are in a known format.

    Args:
        files: Paths of files. If there are several, each is the split that its path below `folder` names (train, ...).
        folder: Folder that the user gave, or that contains the given file.
        images: Folder of the images; None to search beside each file, and in `folder`.
        alone: Whether a file was given and not its folder, so other images in the folder do not matter.

    Returns:
        The pairs; None if no file is in a known format.

    Raises:
        DatasetError: No file of a known format can be used, or no image is found.
    """
    used: list[tuple[DatasetFormat, Path, dict[Split | None, list[RegionMask]]]] = []
    problems: list[Problem] = []
    failures: list[str] = []
    is_known = False
    search = ImageSearch(folder, images)
    for file in files:
        try:
            form, content = _recognize(file)
            if form is not None:
                is_known = True
                described, noticed = form.read(content, file)
                problems += noticed
                used.append((form, file, {split: search.locate(file, masks) for split, masks in described.items()}))
        except DatasetError as error:
            failures.append(str(error))
    if search.nothing_found:
        raise DatasetError(search.describe_failure())
    if not used:
        if failures and (is_known or len(failures) == len(files)):
            raise DatasetError(failures[0])
        return None
    located: dict[Split | None, list[RegionMask]] = defaultdict(list)
    for form, file, by_split in used:
        for split, masks in by_split.items():
            located[split or _split(file, folder, form, len(used))] += masks
    found = {split: _pairs(masks) for split, masks in located.items() if masks}
    if not found:
        raise DatasetError(search.problems()[0].line())
    every = [pair for pairs in found.values() for pair in pairs]
    problems += problems_of("error", "annotation file", "that cannot be used; export it again", failures)
    forms = dict.fromkeys(form for form, _, _ in used)
    unlisted = [] if alone and images is None else _unlisted(every, search, one_image=all(f.one_image for f in forms))
    return DiscoveredPairs(
        found,
        "; ".join(f"{form.name}: {_shown([file for f, file, _ in used if f is form], folder)}" for form in forms),
        (*problems, *_duplicates(every), *search.problems()),
        tuple(unlisted),
    )


def _recognize(file: Path) -> tuple[DatasetFormat | None, Any]:
    """Return the format of a file, and its content as that format loads it."""
    contents: dict[Callable[[Path], Any], Any] = {}
    for form in FORMATS:
        if file.suffix.lower() in form.suffixes:
            if form.load not in contents:
                contents[form.load] = form.load(file)
            if form.recognizes(contents[form.load]):
                return form, contents[form.load]
    return None, None


def _split(file: Path, folder: Path, form: DatasetFormat, count: int) -> Split | None:
    if count == 1:
        return None
    places = file.relative_to(folder).parts[:-1]
    return split_of_folders(places if form.one_image else (*places, file.stem))


def _pairs(masks: Sequence[RegionMask]) -> list[Pair]:
    images = [mask.image for mask in masks if mask.image is not None]
    return [
        Pair(name, image, replace(mask, name=one_line(mask.name, 150)))
        for name, image, mask in zip(unique_names(images), images, masks, strict=True)
    ]


def _duplicates(pairs: Sequence[Pair]) -> list[Problem]:
    again = [second for _, second in duplicate_names(str(pair.image) for pair in pairs)]
    return problems_of("error", "image", "described twice in the annotations; keep one entry of each", again)


def _unlisted(pairs: Sequence[Pair], search: ImageSearch, *, one_image: bool) -> list[Problem]:
    """Report images that no annotation file describes: an error in formats with a file for each image."""
    place = search.images or search.folder
    known = {pair.image.resolve() for pair in pairs}
    others = [str(path) for path in search.files([place]) if path.resolve() not in known]
    if one_image:
        remedy = "annotate it (a file without shapes says that there is nothing to find), or remove it"
        return problems_of("error", "image", f"without an annotation file; {remedy}", others)
    return problems_of("warning", "image", "missing from the annotations and not used", others)


def _shown(files: Sequence[Path], folder: Path) -> str:
    names = [str(file.relative_to(folder)) for file in files[:3]]
    return ", ".join(names) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
