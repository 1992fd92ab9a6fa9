"""Walks over folders: every search for files in the project uses it.

Each real folder is visited once, no matter how many links lead to it, and what is left out is counted, so that a caller
can report it in one line.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from condseg_sdk.words import pluralize

__all__ = ["Walk", "is_hidden", "is_system_folder", "left_out_kind", "walk_folder", "walk_folders"]

SYSTEM_FOLDERS = frozenset(
    {
        "$recycle.bin", "recycler", "recycled", "system volume information", "__macosx", "lost+found",
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot",
        "network trash folder", "temporary items", "found.000",
    }
)  # fmt: skip
"""Names of folders in which NAS and operating systems keep thumbnails, deleted files and snapshots, lower case."""

SYSTEM_FILES = frozenset(
    {"dicomdir", "thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".directory", ".localized", "icon\r"}
)
"""Names of files that file browsers and DICOM media leave behind, lower case; they are not counted as left out."""

MAX_KINDS = 6  # number of kinds in one line; the rest is summed
LONGEST_SUFFIX = 12


@dataclass(frozen=True)
class Walk:
    """What a walk found.

    Attributes:
        files: Files with the wanted suffixes, sorted by path.
        left_out: Number of entries that were left out, by kind, such as ".dcm file" or "hidden folder".
    """

    files: list[Path]
    left_out: Counter[str]

    def summary(self) -> str:
        """Return what was left out in words, or "" if nothing was.

        Example:
            >>> Walk([], Counter({".dcm file": 3, "hidden folder": 1})).summary()
            '3 .dcm files, 1 hidden folder'
        """
        kinds = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{pluralize(count, kind)}" for kind, count in kinds[:MAX_KINDS]]
        rest = sum(count for _, count in kinds[MAX_KINDS:])
        return ", ".join([*shown, pluralize(rest, "other")] if rest else shown)


def walk_folder(
    folder: str | os.PathLike[str],
    *,
    suffixes: Collection[str] | None = None,
    hidden: bool = False,
    also: Callable[[Path], bool] | None = None,
) -> Walk:
    """List the files in a folder and in the folders below it, at any depth.

    Links to files and folders are followed. A folder that several links lead to, or that contains a link to a folder
    above it, is visited once: under its own path if that is below `folder`.

    Args:
        folder: Folder to search, even if it is hidden or has the name of a system folder.
        suffixes: Suffixes of the wanted files, lower case with their dot; default: any suffix.
        hidden: Whether to include files and folders whose names begin with a dot.
        also: Tells whether a file with another suffix is wanted as well.

    Returns:
        The wanted files, and what was left out: other suffixes, hidden entries, folders of NAS and operating systems,
        broken links, special files (pipes, sockets, devices), and folders that cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("a.png", "scan.dcm"):
        ...         (Path(folder) / name).touch()
        ...     found = walk_folder(folder, suffixes={".png"})
        >>> [file.name for file in found.files], found.summary()
        (['a.png'], '1 .dcm file')
    """
    return walk_folders([folder], suffixes=suffixes, hidden=hidden, also=also)


def walk_folders(
    folders: Iterable[str | os.PathLike[str]],
    *,
    suffixes: Collection[str] | None = None,
    hidden: bool = False,
    also: Callable[[Path], bool] | None = None,
) -> Walk:
    """List the files in several folders as `walk_folder` does, with no real folder visited twice."""
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    visited: set[tuple[int, int] | str] = set()
    real: deque[str] = deque()
    links: deque[str] = deque()  # they come last, so that a folder is visited under its own path
    for folder in folders:
        place = os.fspath(folder)
        (links if os.path.islink(place) else real).append(place)  # noqa: PTH114
    while real or links:
        place = real.popleft() if real else links.popleft()
        try:
            identity = _identity(place)
            if identity in visited:
                left_out["link to a folder that was visited already"] += 1
                continue
            visited.add(identity)
            with os.scandir(place) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            left_out["unreadable folder"] += 1
            continue
        for entry in listed:
            if entry.name.lower() in SYSTEM_FILES:
                continue
            kind = _kind(entry, suffixes, hidden, also)
            if kind == "file":
                files.append(Path(entry.path))
            elif kind == "folder":
                (links if entry.is_symlink() else real).append(entry.path)
            else:
                left_out[kind] += 1
    return Walk(sorted(files), left_out)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, such as ".cache" or a Mac's "._scan.png"."""
    return name.startswith(".")


def is_system_folder(name: str) -> bool:
    """Return whether a NAS or system keeps thumbnails, deleted files or snapshots in folders of this name."""
    return name.lower() in SYSTEM_FOLDERS


def _identity(folder: str) -> tuple[int, int] | str:
    status = os.stat(folder)  # noqa: PTH116 - a path of the walk, which stays a string
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _kind(
    entry: os.DirEntry[str], suffixes: Collection[str] | None, hidden: bool, also: Callable[[Path], bool] | None
) -> str:
    """Return "file" or "folder" for a wanted entry, otherwise the kind under which it is reported as left out."""
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError:  # a circular link, or no permission
        return "unreadable entry"
    if is_hidden(entry.name) and not hidden:
        return "hidden folder" if is_folder else "hidden file"
    if is_folder:
        return f"folder named {entry.name}" if is_system_folder(entry.name) else "folder"
    if not is_file:
        return "broken link" if entry.is_symlink() else "special file"
    suffix = Path(entry.name).suffix.lower()
    if suffixes is None or suffix in suffixes or (also is not None and also(Path(entry.path))):
        return "file"
    return left_out_kind(entry.name)


def left_out_kind(name: str) -> str:
    """Return the kind under which a file with another suffix is counted.

    Example:
        >>> left_out_kind("scan.DCM")
        '.dcm file'
    """
    suffix = Path(name).suffix.lower()
    if not suffix:
        return "file without a suffix"
    can_be_shown = suffix.isprintable() and len(suffix) <= LONGEST_SUFFIX
    return f"{suffix} file" if can_be_shown else "file of an unknown kind"
