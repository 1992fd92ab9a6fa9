"""Annotation files -> pairs: which format a JSON file has, and where the images are that it describes.

A new format is one module with `matches` and `read`, and one entry in `FORMATS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from condseg_sdk.data.formats import coco, labelme, via
from condseg_sdk.data.image_finder import FoundImage, ImageFinder, Indices, index_files
from condseg_sdk.data.names import duplicate_names, split_word, unique_names
from condseg_sdk.data.pairs import DiscoveredPairs, Pair, Problem, RegionMask, Split, one_line, problems_of
from condseg_sdk.data.shapes import AnnotatedImage
from condseg_sdk.errors import DatasetError
from condseg_sdk.images.load import IMAGE_SUFFIXES
from condseg_sdk.json_files import read_json
from condseg_sdk.walk import walk_folders

__all__ = ["read_annotation_file", "read_annotations"]

MAX_BYTES = 2**30  # of an annotation file; COCO's own have 450 MB
FORMATS_READ = "COCO, LabelMe or VIA"
LOOKED_SHOWN = 10  # folders named in an error


@dataclass(frozen=True)
class AnnotationFormat:
    """A kind of annotation file.

    Attributes:
        name: What people call it.
        matches: Whether parsed JSON is of this kind.
        read: The images in it and what is wrong with it; raises DatasetError where nothing can be used.
        one_image: Whether there is a file for each image.
    """

    name: str
    matches: Callable[[Any], bool]
    read: Callable[[Any, Path], tuple[list[AnnotatedImage], list[Problem]]]
    one_image: bool = False


FORMATS = (
    AnnotationFormat("COCO", coco.matches, coco.read),
    AnnotationFormat("LabelMe", labelme.matches, labelme.read, one_image=True),
    AnnotationFormat("VIA", via.matches, via.read),
)

Described: TypeAlias = tuple[AnnotatedImage, Path]


def read_annotation_file(file: Path, *, folder: Path, images: Path | None = None) -> DiscoveredPairs:
    """Read the pairs of one annotation file that was given by name.

    Args:
        file: JSON.
        folder: The folder that holds it.
        images: Where the images are; None to look around the file.

    Raises:
        DatasetError: It is of no format that is read, or its images are not found.
    """
    found = read_annotations([file], folder=folder, images=images, alone=True)
    if found is None:
        raise DatasetError(
            f"{file} is no annotation file of {FORMATS_READ} (COCO has the lists 'images' and 'annotations'); export "
            "the annotations as COCO"
        )
    if found.layout.startswith(tuple(f"{form.name}:" for form in FORMATS if form.one_image)):
        return replace(found, layout=f"{found.layout}, which describes one image (give its folder for all of them)")
    return found


def read_annotations(
    files: Sequence[Path], *, folder: Path, images: Path | None = None, alone: bool = False
) -> DiscoveredPairs | None:
    """Read the pairs of those files that are of a known format.

    Args:
        files: JSON files. Where there are several, each is the part that its path below `folder` names (train, ...).
        folder: What the user gave, or holds it.
        images: Where the images are; None to look beside each file, and in `folder`.
        alone: Whether a file was given and not its folder, so that other images in the folder do not matter.

    Returns:
        The pairs; None where no file is of a known format.

    Raises:
        DatasetError: No file of a known format can be used, or no image is found.
    """
    used: list[tuple[AnnotationFormat, Path, list[Described]]] = []
    problems: list[Problem] = []
    failures: list[str] = []
    is_known = False
    search = _Search(folder, images)
    for file in files:
        try:
            content = _load(file)
            form = next((form for form in FORMATS if form.matches(content)), None)
            if form is not None:
                is_known = True
                entries, noticed = form.read(content, file)
                problems += noticed
                used.append((form, file, search.locate(entries)))
        except DatasetError as error:
            failures.append(str(error))
    if search.nothing_found:
        raise DatasetError(search.describe_failure())
    if not used:
        if failures and (is_known or len(failures) == len(files)):
            raise DatasetError(failures[0])
        return None
    described: dict[Split | None, list[Described]] = defaultdict(list)
    for form, file, located in used:
        described[_part(file, folder, form, len(used))] += located
    found = {part: _pairs(entries) for part, entries in described.items() if entries}
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


class _Search:
    """Looks for the images of annotation files, and keeps what was odd about it."""

    def __init__(self, folder: Path, images: Path | None) -> None:
        self.folder, self.images = folder, images
        self.missing: list[str] = []
        self.incomplete: list[Path] = []
        self.guessed: list[str] = []
        self.doubtful: list[str] = []
        self.count = 0
        self.looked: list[Path] = []
        self.example = ""
        self._listed: dict[tuple[Path, ...], list[Path]] = {}
        self._indices: dict[tuple[Path, ...], Indices] = {}

    def locate(self, entries: Sequence[AnnotatedImage]) -> list[Described]:
        """The entries of one file with their images."""
        file = entries[0].file
        roots = list(dict.fromkeys([self.images] if self.images else _candidates(file)))
        finder = ImageFinder(roots, lambda: self._index(self._places(file)))
        finder.prefer([entry.name for entry in entries])
        self.looked = list(dict.fromkeys((*self.looked, *roots)))[:LOOKED_SHOWN]
        located = []
        for entry in entries:
            shown = one_line(entry.name, 150)
            found = finder.find(entry.name)
            if found is None and len(entries) == 1 and (beside := _same_stem(file)) is not None:
                found = FoundImage(beside, is_guess=True)
            if found is None:
                self.missing.append(str(finder.roots[0] / shown))
                if file not in self.incomplete[-1:]:
                    self.incomplete.append(file)
            elif found.several:
                self.doubtful.append(f"{shown} ({' or '.join(map(str, found.several[:3]))})")
            else:
                located.append((entry, found.path))
                if found.is_guess:
                    self.guessed.append(f"{found.path} for {shown}")
        self.count += len(entries)
        self.example = self.example or f"{file}: none of its images, such as {one_line(entries[0].name, 150)},"
        return located

    def files(self, places: Iterable[Path]) -> list[Path]:
        """All image files below some folders, listed once."""
        key = tuple(places)
        if key not in self._listed:
            self._listed[key] = walk_folders(key, suffixes=IMAGE_SUFFIXES).files
        return self._listed[key]

    def _index(self, places: Sequence[Path]) -> Indices:
        """The same files by name, made once: LabelMe has an annotation file for each image."""
        key = tuple(places)
        if key not in self._indices:
            self._indices[key] = index_files(self.files(key))
        return self._indices[key]

    def _places(self, file: Path) -> list[Path]:
        """Folders that are searched to their depths: what was given, else what usually holds a file's images."""
        if self.images is not None:
            return [self.images]
        if file.parent.resolve() != self.folder.resolve():
            return [self.folder]
        return [place for place in _candidates(file) if place.is_dir() and place != file.parent.parent]

    @property
    def nothing_found(self) -> bool:
        return self.count > 0 and len(self.missing) == self.count

    def describe_failure(self) -> str:
        looked = ", ".join(str(folder) for folder in self.looked)
        remedy = "give the folder of images as data and this file as masks"
        if self.images is not None:
            remedy = "give the folder that holds them"
        return f"{self.example} was found (looked in {looked}); {remedy}"

    def problems(self) -> list[Problem]:
        several = "whose name several files have; give the folders in its name"
        guessed = "found by the file's name, since its folder is another; check that it is the same image"
        files = self.incomplete[0].name if len(self.incomplete) == 1 else "the annotation files"
        missing = f"of the annotations that does not exist; add it or take it out of {files}"
        return [
            *problems_of("error", "image", several, self.doubtful),
            *problems_of("error", "image", missing, self.missing),
            *problems_of("warning", "image", guessed, self.guessed),
        ]


def _load(file: Path) -> Any:
    return read_json(file, error=DatasetError, remedy="export it again", max_bytes=MAX_BYTES)


def _part(file: Path, folder: Path, form: AnnotationFormat, count: int) -> Split | None:
    if count == 1:
        return None
    places = file.relative_to(folder).parts[:-1]
    return split_word(places if form.one_image else (*places, file.stem))


def _pairs(described: Sequence[Described]) -> list[Pair]:
    names = unique_names([path for _, path in described])
    return [
        Pair(name, path, RegionMask(entry.file, one_line(entry.name, 150), entry.size, entry.regions, path, entry.kind))
        for name, (entry, path) in zip(names, described, strict=True)
    ]


def _duplicates(pairs: Sequence[Pair]) -> list[Problem]:
    again = [second for _, second in duplicate_names(str(pair.image) for pair in pairs)]
    return problems_of("error", "image", "described twice in the annotations; keep one entry of each", again)


def _unlisted(pairs: Sequence[Pair], search: _Search, *, one_image: bool) -> list[Problem]:
    """Images that no annotation file describes: a slip where each image has a file, else just not used."""
    place = search.images or search.folder
    known = {pair.image.resolve() for pair in pairs}
    others = [str(path) for path in search.files([place]) if path.resolve() not in known]
    if one_image:
        remedy = "annotate it (a file with an empty list 'shapes' says that there is nothing to find), or take it out"
        return problems_of("error", "image", f"without an annotation file; {remedy}", others)
    return problems_of("warning", "image", "that the annotations do not list, not used", others)


def _shown(files: Sequence[Path], folder: Path) -> str:
    names = [str(file.relative_to(folder)) for file in files[:3]]
    return ", ".join(names) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _same_stem(file: Path) -> Path | None:
    """The image beside an annotation file of the same name: images are renamed more often than edited in JSON."""
    beside = (file.with_suffix(suffix) for suffix in sorted(IMAGE_SUFFIXES))
    return next((path for path in beside if path.is_file()), None)


def _candidates(file: Path) -> Iterator[Path]:
    # annotations/instances_train2017.json describes train2017/, or images/train2017/.
    word = file.stem.removeprefix("instances_")
    for folder in (file.parent, file.parent.parent):
        yield folder
        yield folder / "images"
        yield folder / word
        yield folder / "images" / word
