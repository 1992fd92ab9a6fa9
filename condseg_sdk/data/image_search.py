"""Searches for the images that annotation files describe, and records the problems of the search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from condseg_sdk.data.image_finder import FoundImage, ImageFinder, Indices, index_files
from condseg_sdk.data.pairs import Problem, RegionMask, one_line, problems_of
from condseg_sdk.files import real_path
from condseg_sdk.images.load import IMAGE_SUFFIXES
from condseg_sdk.walk import walk_folders

__all__ = ["ImageSearch"]

LOOKED_SHOWN = 10  # folders named in an error


class ImageSearch:
    """Searches for the images of annotation files, and records the problems of the search.

    Args:
        folder: Folder that the user gave, or that contains the annotation file.
        images: Folder of the images; None to search beside the annotation files.
    """

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

    def locate(self, file: Path, entries: Sequence[RegionMask]) -> list[RegionMask]:
        """Return the entries of one annotation file with their images, without those whose image is not found."""
        self.count += len(entries)
        if all(entry.image is not None for entry in entries):
            return list(entries)
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
                located.append(replace(entry, image=found.path))
                if found.is_guess:
                    self.guessed.append(f"{found.path} for {shown}")
        self.example = self.example or f"{file}: none of its images, such as {one_line(entries[0].name, 150)},"
        return located

    def files(self, places: Iterable[Path]) -> list[Path]:
        """List all image files below some folders, once."""
        key = tuple(places)
        if key not in self._listed:
            self._listed[key] = walk_folders(key, suffixes=IMAGE_SUFFIXES).files
        return self._listed[key]

    def _index(self, places: Sequence[Path]) -> Indices:
        """Index the same files by name, once: LabelMe has an annotation file for each image."""
        key = tuple(places)
        if key not in self._indices:
            self._indices[key] = index_files(self.files(key))
        return self._indices[key]

    def _places(self, file: Path) -> list[Path]:
        """Return the folders to search at any depth: the given one, otherwise those that usually contain images."""
        if self.images is not None:
            return [self.images]
        if real_path(file.parent) != real_path(self.folder):
            return [self.folder]
        return [place for place in _candidates(file) if place.is_dir() and place != file.parent.parent]

    @property
    def nothing_found(self) -> bool:
        """Whether entries were searched and none of their images was found."""
        return self.count > 0 and len(self.missing) == self.count

    def describe_failure(self) -> str:
        """Describe a search that found no image, with a remedy."""
        looked = ", ".join(str(folder) for folder in self.looked)
        remedy = "pass the folder of images as data and this file as masks"
        if self.images is not None:
            remedy = "pass the folder that contains them"
        return f"{self.example} was found (looked in {looked}); {remedy}"

    def problems(self) -> list[Problem]:
        """Return the problems of the search."""
        several = "with a name that several files share; include its folders"
        guessed = "found by file name in another folder; check that it is the same image"
        files = self.incomplete[0].name if len(self.incomplete) == 1 else "the annotation files"
        missing = f"of the annotations that cannot be found; add it or remove it from {files}"
        return [
            *problems_of("error", "image", several, self.doubtful),
            *problems_of("error", "image", missing, self.missing),
            *problems_of("warning", "image", guessed, self.guessed),
        ]


def _same_stem(file: Path) -> Path | None:
    """Find the image named like an annotation file, beside it: images are often renamed without editing the file."""
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
