"""Finds the file on this machine that an annotation file names by a path from another machine.

Names come with the folders of the machine that wrote them: ../../label-studio/data/media/upload/1/a.png,
/data/local-files/?d=set/a.png, file:///home/me/my%20set/a.png. Label Studio also adds a prefix of eight characters.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from condseg_sdk.data.names import normalize_name

__all__ = ["FoundImage", "ImageFinder", "Indices", "index_files"]

Parts: TypeAlias = tuple[str, ...]
Indices: TypeAlias = Sequence[Mapping[str, Sequence[Path]]]
"""Files by their names, once for each of the ways in which names are compared (`CHANGES`)."""


@dataclass(frozen=True)
class FoundImage:
    """The file of an image.

    Attributes:
        path: Path of the file.
        is_guess: Whether it was found only by its file name, since its folders differ.
        several: All candidates, if the name does not decide between several files.
    """

    path: Path
    is_guess: bool = False
    several: tuple[Path, ...] = ()


class ImageFinder:
    """Finds images by the names that an annotation file gives them.

    Args:
        roots: Folders that names may be relative to, the most likely first.
        index: Returns the image files to search if a name is in none of the roots, as made by `index_files`. It is
            called only when needed.
    """

    def __init__(self, roots: Sequence[Path], index: Callable[[], Indices]) -> None:
        self.roots = list(roots)
        self._index = index

    def prefer(self, names: Sequence[str]) -> None:
        """Move the folder that contains most of these names to the front."""
        if len(self.roots) < 2:
            return
        most = -1
        for root in list(self.roots):
            count = sum(_in_root(root, name) is not None for name in names)
            if count > most:
                most = count
                self.roots.remove(root)
                self.roots.insert(0, root)
            if count == len(names):
                return

    def find(self, name: str) -> FoundImage | None:
        """Find one image; None if no file has its name."""
        if (path := _in_root(self.roots[0], name)) is not None:
            return FoundImage(path)
        for parts in _spellings(name):
            for change, index in zip(CHANGES, self._index(), strict=True):
                files = index.get(change(parts[-1]), [])
                if files:
                    return _nearest(files, parts)
        return None


def index_files(files: Iterable[Path]) -> Indices:
    """Index files by their names, for `ImageFinder`."""
    indices: list[dict[str, list[Path]]] = [defaultdict(list) for _ in CHANGES]
    for path in files:
        for index, change in zip(indices, CHANGES, strict=True):
            index[change(path.name)].append(path)
    return indices


def _in_root(root: Path, name: str) -> Path | None:
    spellings = [name, *("/".join(parts) for parts in _spellings(name))]
    # Unlike pathlib's, this answers for any string: with a null character, too long, ...
    return next((root / spelling for spelling in spellings if os.path.isfile(root / spelling)), None)  # noqa: PTH113


def _nearest(files: Sequence[Path], parts: Parts) -> FoundImage:
    """Choose among files with the same name the one whose folders agree most with those in the name."""
    shared = [_shared_end(file.parts, parts) for file in files]
    most = max(shared)
    best = [file for file, count in zip(files, shared, strict=True) if count == most]
    several = tuple(best) if len(best) > 1 else ()
    return FoundImage(best[0], is_guess=most < len(parts), several=several)


def _shared_end(path: Sequence[str], parts: Sequence[str]) -> int:
    count = 0
    for one, two in zip(reversed(path), reversed(parts), strict=False):
        if normalize_name(one) != normalize_name(two):
            break
        count += 1
    return count


def _spellings(name: str) -> Iterator[Parts]:
    """Yield the name as folders and file: as written, then read as a URL."""
    parts = _parts(name)
    seen = {(), parts}
    if parts:
        yield parts
    if (inner := _parts(_path_of_address(name))) not in seen:
        seen.add(inner)
        yield inner
        parts = inner
    if (unquoted := _parts(unquote("/".join(parts), errors="surrogateescape"))) not in seen:
        yield unquoted


def _path_of_address(name: str) -> str:
    """Return the path in "http://host/a.png?v=1", or in the query of Label Studio's local files; else the name."""
    if "://" not in name and "?d=" not in name:
        return name
    try:
        address = urlsplit(name)
        return parse_qs(address.query).get("d", [address.path])[0]
    except ValueError:  # looks like a URL but is not one
        return name


def _parts(name: str) -> Parts:
    path = PurePosixPath(re.sub(r"^[A-Za-z]:(?=[\\/])", "", name.replace("\\", "/")))
    return tuple(part for part in path.parts if part.strip("/") not in ("", ".", ".."))


def _without_upload_prefix(name: str) -> str:
    """Remove the prefix of Label Studio's uploads: "3f2a9b1c-name.png" -> "name.png"."""
    return normalize_name(re.sub(r"^[0-9a-f]{8}-(?=.)", "", name))


def _as_upload(name: str) -> str:
    """Spell the name as Label Studio stores it: "_" for spaces, and only letters, digits, "-", "_" and "."."""
    return re.sub(r"[^-\w.]", "", _without_upload_prefix(name).strip().replace(" ", "_"))


def _without_suffix(name: str) -> str:
    """Remove the suffix, since an image may have been converted after it was annotated."""
    return normalize_name(PurePosixPath(name).stem)


# How file names are compared, the strictest first.
CHANGES: tuple[Callable[[str], str], ...] = (normalize_name, _without_upload_prefix, _as_upload, _without_suffix)
