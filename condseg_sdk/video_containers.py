"""What a video file's container says of its frames, and whether the file still holds it.

OpenCV decodes what it finds and leaves out what is damaged, without a word and without leaving numbers free. The
containers say how long they are and where their frames begin; only these headers are read here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["Container", "inspect_container"]


@dataclass(frozen=True)
class Container:
    """What the headers say.

    Attributes:
        is_damaged: Whether the file ends too early or its structure is broken somewhere.
        frames: Number of frames that were written, if the container's index tells it.
        lost: Numbers of the frames whose place in the file holds something else.
        counts_frames: Whether the format stores the number of frames; others give a duration only.
    """

    is_damaged: bool = False
    frames: int | None = None
    lost: frozenset[int] = frozenset()
    counts_frames: bool = False


def inspect_container(path: Path) -> Container:
    """Read a video file's structure: AVI, MP4 and MOV, Matroska and WebM; others tell nothing.

    Example:
        >>> inspect_container(Path("film.avi")).lost  # doctest: +SKIP
        frozenset({29, 30, 31, 32})
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        file.seek(0)
        look: Callable[[BinaryIO, int], Container] | None = None
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            look = _inspect_avi
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            look = _inspect_mp4
        elif head[:4] == b"\x1aE\xdf\xa3":
            look = _inspect_matroska
        return Container() if look is None else look(file, size)


def _inspect_avi(file: BinaryIO, size: int) -> Container:
    movi, index, is_cut = 0, b"", False
    position = 12
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == b"LIST" and file.read(4) == b"movi":
            movi = position + 8
        elif kind == b"idx1":
            index = file.read(min(length, size))
        is_cut |= position + 8 + length > size
        if kind == b"RIFF":  # the next part of a file of more than a gigabyte
            length = 4
        position += 8 + length + length % 2
    entries = list(struct.iter_unpack("<4sIII", index[: len(index) // 16 * 16]))
    stream = next((kind[:2] for kind, *_ in entries if kind[2:] in (b"dc", b"db")), b"")
    # Entries without bytes stand for frames that were dropped while recording: nothing is missing there.
    frames = [(kind, offset, length) for kind, _, offset, length in entries if kind[:2] == stream and length]
    if not frames:
        return Container(is_damaged=is_cut, counts_frames=True)

    def lost(base: int) -> frozenset[int]:
        return frozenset(
            number
            for number, (kind, offset, length) in enumerate(frames)
            if _bytes_at(file, base + offset, 8) != kind + struct.pack("<I", length)
        )

    missing = min((lost(movi), lost(0)), key=len)  # offsets count from the list of frames or from the file's beginning
    return Container(bool(missing) or is_cut, len(frames), missing, counts_frames=True)


def _inspect_mp4(file: BinaryIO, size: int) -> Container:
    position, is_damaged, is_edited, is_fragmented = 0, False, False, False
    while position + 8 <= size and not is_damaged:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            length, header = int.from_bytes(file.read(8), "big"), 16
        if length == 0 and kind == b"mdat":  # to the end of the file
            break
        if kind == b"moov":
            is_edited = b"elst" in file.read(max(min(length, size - position) - header, 0))
        is_fragmented |= kind == b"moof"
        is_damaged = (
            length < header or position + length > size or not kind.isascii() or not kind.decode().isprintable()
        )
        position += length
    # An edit list may leave out frames that are in the file.
    return Container(is_damaged=is_damaged, counts_frames=is_damaged or not (is_edited or is_fragmented))


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_IN_SEGMENT = frozenset({0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1043A770, 0x1254C367, 0x1941A469})
_IN_CLUSTER = frozenset({0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF})
_ANYWHERE = frozenset({0xEC, 0xBF})  # padding and checksums
_UNKNOWN_SIZE = -1  # of what was written to a pipe


def _inspect_matroska(file: BinaryIO, size: int) -> Container:
    """Go from element to element: segments and clusters are entered, all others are passed over."""
    for identity, length, begin in _elements(file, size):
        if identity in (_SEGMENT, _CLUSTER):
            is_damaged = identity == _SEGMENT and length != _UNKNOWN_SIZE and begin + length > size
        else:
            is_damaged = length == _UNKNOWN_SIZE or begin + length > size
        if identity != 0x1A45DFA3 and identity not in _IN_SEGMENT | _IN_CLUSTER | _ANYWHERE | {_SEGMENT}:
            is_damaged = True
        if is_damaged:
            return Container(is_damaged=True)
    return Container()


def _elements(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield identity, length and position of content of each element that is in a segment or in a cluster."""
    position = 0
    while position < size:
        head = _bytes_at(file, position, 12)
        identity, width = _number(head, keep_marker=True)
        length, more = _number(head[width:], keep_marker=False)
        begin = position + width + more
        if not width or not more:
            yield 0, 0, position
            return
        yield identity, length, begin
        position = begin if identity in (_SEGMENT, _CLUSTER) else begin + max(length, 0)


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Read a number of EBML's, whose first byte tells how many follow; (value, number of bytes), 0 bytes if broken."""
    if not data or not data[0]:
        return 0, 0
    width = 9 - data[0].bit_length()
    if len(data) < width:
        return 0, 0
    value = int.from_bytes(data[:width], "big")
    if keep_marker:
        return value, width
    value &= (1 << 7 * width) - 1
    return (_UNKNOWN_SIZE if value == (1 << 7 * width) - 1 else value), width


def _bytes_at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)
