"""Where the files of a command are written: all names are planned and checked before the work.

Two sources never share a file, a source is never replaced, and a file that condseg did not write is replaced only with
`--overwrite`.
"""

from __future__ import annotations

import argparse
import os
import re
import unicodedata
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from condseg_sdk.errors import OptionError, OutputError
from condseg_sdk.files import check_folder, real_path
from condseg_sdk.images.dicom import multi_frame
from condseg_sdk.images.load import VIDEO_SUFFIXES, find_images, is_single
from condseg_sdk.labels.base import ImageName
from condseg_sdk.labels.write import LabelWriter, written_labels
from condseg_sdk.provenance import check_replaced, is_ours

__all__ = ["RECORDING_ENDING", "Outputs", "add_overwrite", "check_output_folder", "is_video_name", "plan_outputs"]


RECORDING_ENDING = "_seg.dcm"
"""Ending of the DICOM segmentation: that of an image, or that of all frames of a recording."""


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the flag `--overwrite`, which every command that writes files has."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that condseg did not write, or that were changed since"
    )


def check_output_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be written to, or that would hide a model, before the work.

    Raises:
        OptionError: `--model` would find the folder instead of the model of this name.
        OutputError: The folder cannot be made or written to.
    """
    from condseg_sdk.weights.manifest import list_models

    if folder.absolute() == Path.cwd() / folder.name and folder.name in [entry.name for entry in list_models()]:
        raise OptionError(
            f"--out {folder}: a model has this name, and the folder would hide it; choose another name", option="out"
        )
    check_folder(folder)


@dataclass(frozen=True)
class Outputs:
    """Where the files of each source are written, as paths without the ending of each kind of file.

    Attributes:
        images: The beginning of the paths of each image's files.
        videos: The same for each video and each DICOM file with several frames; `frame` adds the number of a frame.
        out: Folder to write to.
    """

    images: dict[Path, Path]
    videos: dict[Path, Path]
    out: Path

    @staticmethod
    def frame(video: Path, number: int) -> Path:
        """Return the beginning of the paths of a frame's files."""
        return video.with_name(f"{video.name}_{number:06d}")

    def image_name(self, base: Path, source: Path | None) -> ImageName:
        """Return how labels name an image, from the beginning of its paths; a frame of a video has no `source`."""
        stem = base.relative_to(self.out)
        file = stem.with_name(f"{stem.name}.png" if source is None else source.name)
        return ImageName(file.as_posix(), stem.as_posix())


def plan_outputs(
    sources: Sequence[str],
    out: Path,
    endings: Sequence[str],
    *,
    labels: LabelWriter | None = None,
    log: Path | None = None,
    overwrite: bool,
) -> Outputs:
    """Plan the files of all sources.

    An image in a folder keeps its place in it. The suffix stays in the name where two names would otherwise differ only
    by it, or by what some file systems ignore (upper and lower case, two ways to write an accent).

    Args:
        sources: Images, folders, glob patterns and videos.
        out: Folder to write to.
        endings: Endings of the files of a source, such as "_mask.png".
        labels: Writes labels into the same folder; None for no labels.
        log: Another file that the command writes.
        overwrite: Whether to replace files that condseg did not write.

    Raises:
        OptionError: A source contains nothing but files of the output folder, or the log is one of the files.
        OutputError: Two sources would write the same file, or a file must not be replaced.
        ImageError: A source contains no image.
    """
    planned = _with_suffixes(sources, out, endings)
    _drop_suffixes(planned)
    _check_distinct(planned, out)
    files = _Files(planned, endings, labels)
    _check_sources(planned, files)
    if log is not None and files.include(log):
        raise OptionError(f"--log {log} is a name of the results; choose another one, such as run.jsonl", option="log")
    check_replaced(files.all(), overwrite=overwrite)
    return planned


def _with_suffixes(sources: Sequence[str], out: Path, endings: Sequence[str]) -> Outputs:
    """Plan the paths with the suffixes of the sources."""
    planned = Outputs({}, {}, out)
    taken: dict[tuple[Path, Path], Path] = {}
    for source in sources:
        is_video = is_video_name(Path(source)) and is_single(source)
        for path in [Path(source)] if is_video else _found(source, out, endings):
            is_sequence = is_video_name(path) or multi_frame(path) is not None
            plan = planned.videos if is_sequence else planned.images
            target = out / (path.relative_to(source) if Path(source).is_dir() else path.name)
            # The same file named twice ("a.png", "./a.png", and in its folder) is one source.
            if taken.setdefault((real_path(path), target), path) is path:
                plan[path] = target
    return planned


def is_video_name(path: Path) -> bool:
    """Return whether a path has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _found(source: str, out: Path, endings: Sequence[str]) -> list[Path]:
    """List the images of a source without the files of an earlier call."""
    found: list[Path] = find_images(source)
    if is_single(source):
        return found
    folder = real_path(out)
    if real_path(source).is_relative_to(folder):
        written = {path.with_name(path.with_suffix("").name + ending) for path in found for ending in endings}
        written |= {path.with_name(path.name + ending) for path in found for ending in endings}
        return [path for path in found if not ((path in written or written_labels(path, out)) and is_ours(path))]
    images = [path for path in found if not real_path(path).is_relative_to(folder)]
    if not images:
        raise OptionError(
            f"{source} contains only files in {out}, the folder of the output; choose another --out", option="out"
        )
    return images


def _drop_suffixes(planned: Outputs) -> None:
    """Remove the suffixes of the sources from the names, except where names would then be equal."""
    count = Counter(_fold(path.with_suffix("")) for path in (*planned.images.values(), *planned.videos.values()))
    frames = {_video_of(_fold(path.with_suffix(""))) for path in planned.images.values()}
    for plan in (planned.images, planned.videos):
        for source, target in plan.items():
            name = _fold(target.with_suffix(""))
            if count[name] == 1 and not (plan is planned.videos and name in frames):
                plan[source] = target.with_suffix("")


def _video_of(name: str) -> str | None:
    """Return the video whose frames have names like this one; None for any other name."""
    match = re.fullmatch(r"(.*)_\d{6,}", name, re.DOTALL)
    return match[1] if match else None


def _check_distinct(planned: Outputs, out: Path) -> None:
    """Refuse two sources that would write the same files."""
    fold = str if _distinguishes_names(out) else _fold
    owners: dict[str, Path] = {}
    videos = {fold(base): path for path, base in planned.videos.items()}
    for source, target in (*planned.images.items(), *planned.videos.items()):
        other = owners.setdefault(fold(target), source)
        if other is source and source in planned.images:
            other = videos.get(_video_of(fold(target)) or "", source)
        if other is not source:
            raise OutputError(
                f"{source} and {other} would write the same files, {target}...; pass their common folder instead, or "
                "rename one",
                path=target,
            )


@dataclass(frozen=True)
class _Files:
    """The files that a plan leads to."""

    planned: Outputs
    endings: Sequence[str]
    labels: LabelWriter | None

    def of(self, base: Path, source: Path | None) -> Iterator[Path]:
        """Yield the files of one image."""
        yield from (base.with_name(base.name + ending) for ending in self.endings)
        if self.labels is not None:
            yield from self.labels.image_files(self.planned.image_name(base, source))

    def all(self) -> Iterator[Path]:
        """Yield all files that there will be, and those that an earlier call has written for the videos."""
        for source, base in self.planned.images.items():
            yield from self.of(base, source)
        yield from self._frames()
        if RECORDING_ENDING in self.endings:
            yield from (base.with_name(base.name + RECORDING_ENDING) for base in self.planned.videos.values())
        if self.labels is not None:
            yield from self.labels.run_files()

    def include(self, path: Path) -> bool:
        """Return whether a path is one of these files, one that a frame of a video may get, or the folder."""
        place = real_path(path)
        if real_path(self.planned.out).is_relative_to(place):
            return True
        if any(file.name == path.name and real_path(file) == place for file in self.all()):
            return True
        return any(real_path(folder) == place.parent and _is_frame(path, of) for folder, of in self._videos().items())

    def _frames(self) -> Iterator[Path]:
        """Yield the files of an earlier call for frames of the videos."""
        for folder, kinds in self._videos().items():
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if _is_frame(path, kinds):
                    yield path

    def _videos(self) -> dict[Path, set[tuple[str, str]]]:
        """Return the names of the videos and the endings of the files of their frames, by folder."""
        videos: dict[Path, set[tuple[str, str]]] = defaultdict(set)
        for base in self.planned.videos.values():
            first = self.planned.frame(base, 0)
            for path in self.of(first, None):
                videos[path.parent].add((base.name, path.name.removeprefix(first.name)))
        return videos


def _is_frame(path: Path, kinds: Collection[tuple[str, str]]) -> bool:
    """Return whether a name is that of a frame's file, from pairs of the name of a video and an ending."""
    endings = {ending for _, ending in kinds if path.name.endswith(ending)}
    return any((_video_of(path.name.removesuffix(ending)), ending) in kinds for ending in endings)


def _check_sources(planned: Outputs, files: _Files) -> None:
    """Refuse files that would replace a source, or one another."""
    sources = {}
    for source in (*planned.images, *planned.videos):
        with suppress(OSError, ValueError):  # it is reported when its turn comes
            status = source.stat()
            sources[status.st_dev, status.st_ino] = source
    owners: dict[Path, Path] = {}
    for source, base in planned.images.items():
        for path in files.of(base, source):
            if owners.setdefault(path, source) is not source:
                raise OutputError(f"{path} would be written for {owners[path]} and {source}; rename one", path=path)
    for path in files.all():
        with suppress(OSError):
            status = path.stat()
            if (status.st_dev, status.st_ino) in sources:
                owner = f", and the output for {owners[path]} would replace it" if path in owners else ""
                raise OutputError(f"{path} is one of the images{owner}; choose another --out", path=path)
    for path in () if files.labels is None else files.labels.run_files():
        if path in owners:
            raise OutputError(f"{path} would be written for {owners[path]} and for all; rename the image", path=path)


def _fold(path: Path) -> str:
    """Return a name in the form that a file system compares if it ignores case and normalizes accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def _distinguishes_names(folder: Path) -> bool:
    """Return whether two names that `_fold` makes equal are two files in this folder."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    name = f".{uuid.uuid4().hex}-\u00e9"
    probe = place / name
    try:
        probe.touch()
        others: Iterable[str] = (name.upper(), unicodedata.normalize("NFD", name))
        return not any(os.path.lexists(place / other) for other in others)
    except (OSError, UnicodeError):  # it cannot be written to, which is reported elsewhere
        return False
    finally:
        with suppress(OSError, UnicodeError):
            probe.unlink()
