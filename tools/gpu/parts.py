"""Files that are cut into parts for a transfer, and joined again once all parts have arrived and are intact.

    python tools/gpu/parts.py join FOLDER OUT    # writes to OUT what parts.json in FOLDER describes

It needs nothing but Python, since it runs on the bare machine before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

INDEX = "parts.json"
BLOCK = 2**20


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split(files: Sequence[Path], folder: Path, *, most: int) -> list[Path]:
    """Cut files into parts, one stream for all of them, so that every part but the last is full.

    Args:
        files: Files of different names.
        folder: Existing folder for the parts and their index, parts.json. Parts of an earlier call are deleted.
        most: Maximum size of a part in bytes.

    Returns:
        The parts, in order.
    """
    for old in folder.glob("part-*"):
        old.unlink()
    stream = _Stream(files)
    parts: list[Path] = []
    for number in range(1, math.ceil(sum(file.stat().st_size for file in files) / most) + 1):
        parts.append(folder / f"part-{number:03d}")
        _write(parts[-1], stream.read(most))
    index = {
        "files": [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)} for file in files],
        "parts": [{"name": part.name, "bytes": part.stat().st_size, "sha256": sha256(part)} for part in parts],
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return parts


def _write(path: Path, blocks: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)


def missing(folder: Path) -> list[str]:
    """Return a line for each part that is not there, or not as it was sent."""
    if not (folder / INDEX).is_file():
        return [f"{INDEX} is missing"]
    try:
        _read(folder)
    except ValueError:  # of JSON, or not UTF-8
        return [f"{INDEX} is damaged"]
    return [f"{part['name']} {problem}" for part in _read(folder)["parts"] if (problem := _problem(folder, part))]


def _problem(folder: Path, part: dict[str, Any]) -> str:
    path = folder / part["name"]
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != part["bytes"]:
        return f"has {path.stat().st_size} of {part['bytes']} bytes"
    return "" if sha256(path) == part["sha256"] else "is damaged (SHA-256)"


def join(folder: Path, out: Path) -> list[Path]:
    """Join parts into the files that they were cut from.

    Args:
        folder: Folder of the parts and their index.
        out: Folder for the files. A file appears there whole or not at all.

    Returns:
        The files.

    Raises:
        ValueError: Parts are missing or damaged; the message lists them.
    """
    if problems := missing(folder):
        raise ValueError(f"{folder}: {'; '.join(problems)}")
    index = _read(folder)
    out.mkdir(parents=True, exist_ok=True)
    stream = _Stream([folder / part["name"] for part in index["parts"]])
    files = []
    for file in index["files"]:
        path = out / file["name"]
        partial = path.with_name(f"{path.name}.partial")
        _write(partial, stream.read(file["bytes"]))
        if sha256(partial) != file["sha256"]:
            raise ValueError(f"{path} is damaged (SHA-256): send all parts again")
        partial.rename(path)
        files.append(path)
    return files


def _read(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return index


class _Stream:
    """The content of several files, one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._blocks = _blocks(paths)
        self._rest = b""

    def read(self, count: int) -> Iterator[bytes]:
        """Yield the next `count` bytes in blocks."""
        while count > 0:
            block = self._rest or next(self._blocks, b"")
            if not block:
                return
            self._rest, block = block[count:], block[:count]
            count -= len(block)
            yield block


def _blocks(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "join":
        raise SystemExit("usage: parts.py join FOLDER OUT")
    try:
        for joined in join(Path(sys.argv[2]), Path(sys.argv[3])):
            print(joined)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
