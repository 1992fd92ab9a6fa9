"""Lists the images of a path, folder, glob pattern or list."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import cast, overload

from condseg_sdk.errors import ImageError
from condseg_sdk.images.dicom import may_be_dicom
from condseg_sdk.images.formats import (
    DICOM_REMEDY,
    DICOM_SUFFIXES,
    HAS_DICOM,
    HEIF_REMEDY,
    HEIF_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
)
from condseg_sdk.images.limits import source_path
from condseg_sdk.images.types import ImageLike, Sources
from condseg_sdk.walk import Walk, is_hidden, is_system_folder, left_out_kind, walk_folder, walk_folders

__all__ = ["find_images", "is_single"]

logger = logging.getLogger("condseg_sdk")


@overload
def find_images(source: str | os.PathLike[str]) -> list[Path]: ...
@overload
def find_images(source: Sources) -> list[ImageLike]: ...
def find_images(source: Sources) -> Sequence[ImageLike]:
    """List the images that a source refers to, in a stable order.

    Args:
        source: A path, a folder (searched at any depth, each real folder once), a glob pattern ("scans/**/*.png"),
            any source that `load_image` accepts, or a list or tuple of these. Folders and patterns stand for files with
            a suffix in `IMAGE_SUFFIXES` that are not hidden, sorted by path; with pydicom also DICOM files without a
            suffix. A pattern with the suffix of a video ("films/*.mp4") matches videos. What is left out is counted by
            kind in one line of the log.

    Returns:
        Paths for strings and paths, other objects as they are. Files given by name are not checked here; `load_image`
        does that.

    Raises:
        ImageError: A folder, a pattern or a list has no image.

    Example:
        >>> find_images(["a.png", "b.png"]) == [Path("a.png"), Path("b.png")]
        True
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise ImageError("an empty list has no image; pass at least one")
        return [image for item in source for image in find_images(item)]
    if not isinstance(source, (str, os.PathLike)):
        return [cast("ImageLike", source)]  # a sequence that is neither a list nor a tuple is one source, such as bytes
    if is_single(source):
        return [source_path(source)]
    name = os.fspath(source)
    found = walk_folder(name, suffixes=IMAGE_SUFFIXES, also=_also) if Path(name).is_dir() else _expand_pattern(name)
    left_out = found.summary()
    remedies = _remedies(name, found.left_out)
    if not found.files:
        detail = f" (left out: {left_out})" if left_out else ""
        suffixes = f"images are files named {', '.join(sorted(IMAGE_SUFFIXES))}"
        raise ImageError(f"{name} contains no image{detail}; {'; '.join(remedies) or suffixes}", path=name)
    if left_out:
        logger.warning("%s: left out %s", name, "; ".join([left_out, *remedies]))
    return list(found.files)


def _also(path: Path) -> bool:
    """Return whether a file without the suffix of an image is an image."""
    return HAS_DICOM and may_be_dicom(path)


def _remedies(name: str, left_out: Counter[str]) -> list[str]:
    """Say how to process files that were left out but can be processed."""
    suffixes = [kind.removesuffix(" file") for kind in left_out if kind.startswith(".")]
    remedies = []
    video = next((suffix for suffix in suffixes if suffix in VIDEO_SUFFIXES), None)
    if video is not None:
        folder = Path(name) if Path(name).is_dir() else Path(name).parent
        remedies.append(f"pass videos by name or pattern, such as {str(folder / f'*{video}')!r}")
    if HEIF_SUFFIXES & {*suffixes}:
        remedies.append(f"{HEIF_REMEDY} for HEIC files")
    if DICOM_SUFFIXES & {*suffixes}:
        remedies.append(f"{DICOM_REMEDY} for DICOM files")
    return remedies


def _expand_pattern(pattern: str) -> Walk:
    """List the images or videos that a glob pattern matches; `**` matches any number of folders, each visited once."""
    parts = Path(pattern).parts
    literal = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    literal = min(literal, len(parts) - 1)
    wanted = list(parts[literal:])
    left_out: Counter[str] = Counter()
    if "**" in wanted:
        # Parts before the first ** name folders one by one; from there on the folders are walked.
        start = literal + wanted.index("**")
        bases = [base for base in _globbed(parts[:start]) if base.is_dir()]
        hidden = any(part.startswith(".") for part in parts[start:])
        walked = walk_folders(bases, hidden=hidden)
        files = [file for file in walked.files if _matches(file.parts[start:], parts[start:])]
        left_out += walked.left_out
    else:
        files = [file for file in _globbed(parts) if file.is_file()]
    suffix = Path(pattern).suffix.lower()
    names_videos = any(map(str.isalnum, suffix)) and any(fnmatch(kind, suffix) for kind in VIDEO_SUFFIXES)
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES if names_videos else IMAGE_SUFFIXES
    images = []
    for file in files:
        if any(is_system_folder(part) for part in file.parts[literal:-1]):
            left_out["file in a system folder"] += 1
        elif file.suffix.lower() in suffixes or _also(file):
            images.append(file)
        else:
            left_out[left_out_kind(file.name)] += 1
    return Walk(sorted(images), left_out)


def _globbed(parts: Sequence[str]) -> list[Path]:
    pattern = os.path.join(*parts) if parts else os.curdir  # noqa: PTH118
    return [Path(file) for file in glob.glob(pattern)]  # noqa: PTH207 - may be absolute


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob pattern, in which `**` means any number of folders."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(path)
        return _matches(path, pattern[1:]) or (len(path) > 1 and _matches(path[1:], pattern))
    if not path or (is_hidden(path[0]) and not is_hidden(pattern[0])):
        return False
    return fnmatch(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def is_single(source: object) -> bool:
    """Return whether a source is one image and not a list, a folder or a glob pattern.

    A path that exists is never a pattern, even with brackets in its name.

    Example:
        >>> is_single("frame.jpg"), is_single("frames/*.jpg")
        (True, False)
    """
    if isinstance(source, (str, os.PathLike)):
        # Unlike pathlib's, these answer for any string, however long.
        is_file, is_folder = os.path.isfile(source), os.path.isdir(source)  # noqa: PTH112, PTH113
        return is_file or not (is_folder or glob.has_magic(os.fspath(source)))
    return not isinstance(source, (list, tuple))
