"""Writes labels of many predictions, in several formats at once, and plans the names of all files."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from types import TracebackType
from typing import Self

from condseg_sdk.errors import OptionError, OutputError
from condseg_sdk.files import atomic_write_all, make_folder
from condseg_sdk.images.load import IMAGE_SUFFIXES
from condseg_sdk.labels import FORMATS
from condseg_sdk.labels.base import ImageName, LabeledImage, LabelOptions, Record, Write
from condseg_sdk.labels.ranking import Ranking
from condseg_sdk.options import check_flags, check_path, check_spacing, check_text
from condseg_sdk.provenance import CHECKSUMS, add_checksums, check_replaced
from condseg_sdk.segmentation import Segmentation

__all__ = ["EncodedLabels", "LabelWriter", "save_labels", "write_files", "written_labels"]


def save_labels(
    segmentations: Iterable[Segmentation],
    folder: str | os.PathLike[str],
    *,
    formats: str | Sequence[str] = "coco",
    label: str = "foreground",
    root: str | os.PathLike[str] | None = None,
    spacing: float | Sequence[float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write predictions as labels for annotation tools, and as tables and a contact sheet.

    Predictions are taken one after the other, so that `predictor.stream(...)` needs no more memory for 100,000 images
    than for a few. Files about all images are ordered from the most uncertain image to the least uncertain one
    (`Segmentation.uncertainty_score`). `open_dataset` and `finetune` read these labels back exactly, to the pixel.

    Args:
        segmentations: Predictions, such as `predictor.stream("frames/")`.
        folder: Folder to write to; it is created if it is missing.
        formats: One or several of "coco", "labelme", "yolo", "geojson", "label-png", "csv" and "sheet":
            docs/labeling.md shows the files of each.
        label: Name of the class of all regions, as the annotation tool knows it.
        root: Folder of the images. Labels name each image by its path below this folder; without it, by its file name.
        spacing: Distance between pixels in millimeters, for the table of "csv": one number, or the distances between
            rows and between columns, as in DICOM. Default: the one in each image's file, if there is one.
        overwrite: Whether to replace files that condseg did not write, or that were changed since.

    Returns:
        The folder. If the iteration over the predictions raises an error, the files of those before it are complete.

    Raises:
        OptionError: A format is unknown, or another argument is not allowed.
        OutputError: Two images have the same name, a file must not be replaced, or it cannot be written.
        ImageError: An image that is copied or drawn can no longer be read.

    Example:
        >>> from condseg_sdk import save_labels
        >>> folder = save_labels(predictor.stream("frames"), "labels", formats=["coco", "csv"], label="polyp")
        >>> sorted(path.name for path in folder.iterdir())
        ['checksums.json', 'coco.json', 'measurements.csv']
    """
    names = (formats,) if isinstance(formats, str) else tuple(formats)
    check_flags(overwrite=overwrite)
    base = None if root is None else check_path("root", root)
    with LabelWriter(check_path("folder", folder), names, label=label, spacing=spacing) as writer:
        check_replaced(writer.run_files(), overwrite=overwrite)
        taken: set[Path | str] = set()
        for seg in segmentations:
            name = _name(seg, base)
            files = writer.image_files(name)
            if not taken.isdisjoint((name.file_name, *files)):
                remedy = "pass root=, the folder of all images, or rename one"
                raise OutputError(f"{seg.name}: another image has the same name without its folder; {remedy}")
            taken.update((name.file_name, *files))
            check_replaced(files, overwrite=overwrite)
            labels = writer.encode(LabeledImage(seg, name))
            write_files(labels.files)
            writer.add(labels)
    return Path(folder)


def _name(seg: Segmentation, root: Path | None) -> ImageName:
    """Name an image by its path below `root`, or by its file's name."""
    path = PurePath(seg.name)
    if root is not None:
        try:
            path = Path(seg.name).resolve().relative_to(root.resolve())
        except (ValueError, OSError) as error:
            raise OptionError(f"{seg.name} is not in {root}; pass the folder of all images", option="root") from error
    else:
        path = PurePath(path.name)
    stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    if seg.frame is not None:
        stem = stem.with_name(f"{stem.name}_{seg.frame:06d}")
    from_file = isinstance(seg.source, (str, os.PathLike)) and seg.frame is None
    return ImageName(path.as_posix() if from_file else f"{stem.as_posix()}.png", stem.as_posix())


def write_files(files: dict[Path, bytes]) -> None:
    """Write the files of an image: all of them, or none.

    Raises:
        OutputError: A file cannot be written.
    """
    for folder in {path.parent for path in files}:
        make_folder(folder)
    atomic_write_all({path: partial(Path.write_bytes, data=data) for path, data in files.items()})


def written_labels(path: Path, folder: Path) -> bool:
    """Return whether a path in the output folder is one that a label format may write."""
    if not path.resolve().is_relative_to(folder.resolve()):
        return False
    place = path.resolve().relative_to(folder.resolve())
    name = ImageName("x.png", "x")
    folders = {PurePath(file).parts[0] for form in FORMATS.values() for file in form.image_files(name)}
    return place.parts[0] in folders or place.as_posix() in {f for form in FORMATS.values() for f in form.run_files}


@dataclass(frozen=True)
class EncodedLabels:
    """The labels of one image, ready to be written.

    Attributes:
        files: Contents of its own files.
        score: Uncertainty of the image.
        name: Name of the image.
        records: What the files of the run need to know about it, by format.
        digests: SHA-256 of files without a seal, by their paths below the output folder.
    """

    files: dict[Path, bytes]
    score: float
    name: str
    records: dict[str, Record]
    digests: dict[str, str]


class LabelWriter:
    """Collects the labels of a run and writes the files about all of its images at the end.

    Used in a `with` block, at whose end these files are written, even after an error or an interrupt.

    Args:
        folder: Folder to write to.
        formats: Names of formats in `FORMATS`.
        label: Name of the class of all regions.
        spacing: Distance between pixels in millimeters, one or two numbers; None to use the one in each image's file.

    Raises:
        OptionError: A format is unknown, or another argument is not allowed.
    """

    def __init__(
        self, folder: Path, formats: Sequence[str], *, label: str, spacing: float | Sequence[float] | None = None
    ) -> None:
        unknown = [name for name in formats if name not in FORMATS]
        if unknown or not formats:
            shown = repr(unknown[0]) if unknown else "nothing"
            raise OptionError(f"formats: {shown} is not one of {', '.join(FORMATS)}", option="formats")
        check_text("label", label)
        self.folder = folder
        self._formats = [FORMATS[name] for name in dict.fromkeys(formats)]
        self._options = LabelOptions(label, folder, None if spacing is None else check_spacing(spacing))
        self._rankings = {form.name: Ranking(form.kept) for form in self._formats if form.record is not None}
        self._digests: dict[str, str] = {}
        self._lock = threading.Lock()
        self._count = 0

    def image_files(self, name: ImageName) -> list[Path]:
        """Return the paths of the files that an image will have."""
        return [self.folder / file for form in self._formats for file in form.image_files(name)]

    def run_files(self) -> list[Path]:
        """Return the paths of the files about all images."""
        files = [self.folder / file for form in self._formats for file in form.run_files]
        if not all(form.is_sealed for form in self._formats):
            files.append(self.folder / CHECKSUMS)
        return files

    def encode(self, image: LabeledImage) -> EncodedLabels:
        """Make the labels of an image. Several threads may do this at once.

        Raises:
            ImageError: The image is copied or drawn and can no longer be read.
        """
        files: dict[Path, bytes] = {}
        records: dict[str, Record] = {}
        digests: dict[str, str] = {}
        for form in self._formats:
            for file, data in zip(form.image_files(image.name), form.encode(image, self._options), strict=True):
                files[self.folder / file] = data
                if not form.is_sealed:
                    digests[file] = hashlib.sha256(data).hexdigest()
            if form.record is not None:
                records[form.name] = form.record(image, self._options)
        return EncodedLabels(files, image.uncertainty, image.name.file_name, records, digests)

    def add(self, labels: EncodedLabels) -> None:
        """Add an image, whose files are written, to the files of the run. Several threads may do this at once."""
        with self._lock:
            self._count += 1
            self._digests.update(labels.digests)
            for name, record in labels.records.items():
                self._rankings[name].add(labels.score, labels.name, record)

    def finish(self) -> None:
        """Write the files about all images; without an image nothing is written.

        Raises:
            OutputError: A file cannot be written.
        """
        if not self._count:
            return
        writes = dict(self._writes())
        if not all(form.is_sealed for form in self._formats):
            writes[self.folder / CHECKSUMS] = lambda path: add_checksums(path, self.folder / CHECKSUMS, self._digests)
        for folder in {path.parent for path in writes}:
            make_folder(folder)
        atomic_write_all(writes)

    def _writes(self) -> Iterator[tuple[Path, Write]]:
        for form in self._formats:
            ranking = self._rankings.get(form.name, ())
            for file, write in zip(form.run_files, form.finish(ranking, self._options), strict=True):
                yield self.folder / file, write if form.is_sealed else self._with_digest(file, write)

    def _with_digest(self, file: str, write: Write) -> Callable[[Path], None]:
        def write_and_record(path: Path) -> None:
            write(path)
            with path.open("rb") as written:
                self._digests[file] = hashlib.file_digest(written, "sha256").hexdigest()

        return write_and_record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.finish()
        finally:
            for ranking in self._rankings.values():
                ranking.close()
