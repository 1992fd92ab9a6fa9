"""Reads from a video's container which frames it should have, and checks that the file is complete.

OpenCV silently skips damaged frames and numbers the others without gaps. Containers state their length and where their
frames begin; only these headers are read here.
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
    """What the headers of a video file state.

    Attributes:
        is_damaged: Whether the file ends too early or its structure is broken somewhere.
        frames: Number of frames that were written, if the container's index or, without one, its header states it.
        lost: Numbers of the frames whose position in the file contains something else.
        counts_frames: Whether the format stores the number of frames; others store only a duration.
    """

    is_damaged: bool = False
    frames: int | None = None
    lost: frozenset[int] = frozenset()
    counts_frames: bool = False


def inspect_container(path: Path) -> Container:
    """Read the structure of a video file: AVI, MP4 and MOV, Matroska and WebM, ASF (WMV), or MPEG.

    Bytes after a complete file, such as zeros of a recorder that reserves space, are not damage.

    Returns:
        What the headers state; nothing for other formats.

    Example:
        >>> inspect_container(Path("colonoscopy.mp4"))  # an AVI file, in spite of its name
        Container(is_damaged=False, frames=3, lost=frozenset(), counts_frames=True)
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
        elif head == _ASF_HEADER[:12]:
            look = _inspect_asf
        elif head[:4] == _PACK:
            look = _inspect_program_stream
        elif head[:1] == b"G" or head[4:5] == b"G":
            look = _inspect_transport_stream
        return Container() if look is None else look(file, size)


def _inspect_avi(file: BinaryIO, size: int) -> Container:
    movi, index, is_cut, is_index_cut, written = 0, b"", False, False, 0
    position = 12
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == b"LIST" and (what := file.read(4)) in (b"movi", b"hdrl"):
            if what == b"movi":
                movi = position + 8
            else:
                written = written or _avi_length(file.read(min(length, size)))
        elif kind == b"idx1":
            index = file.read(min(length, size))
            is_index_cut = len(index) < length
        is_cut |= position + 8 + length > size
        if kind == b"RIFF":  # the next part of a file of more than a gigabyte
            length = 4
        position += 8 + length + length % 2
    entries = list(struct.iter_unpack("<4sIII", index[: len(index) // 16 * 16]))
    stream = next((kind[:2] for kind, *_ in entries if kind[2:] in (b"dc", b"db")), b"")
    # Entries without bytes are frames that were dropped while recording: nothing is missing there.
    frames = [(kind, offset, length) for kind, _, offset, length in entries if kind[:2] == stream and length]
    if not frames:
        return Container(is_damaged=is_cut, frames=written or None if is_cut else None, counts_frames=True)

    def lost(base: int) -> frozenset[int]:
        return frozenset(
            number
            for number, (kind, offset, length) in enumerate(frames)
            if _bytes_at(file, base + offset, 8) != kind + struct.pack("<I", length)
        )

    missing = min((lost(movi), lost(0)), key=len)  # offsets count from the list of frames or from the file's beginning
    count = max(written, len(frames)) if is_index_cut else len(frames)
    return Container(bool(missing) or is_cut, count, missing, counts_frames=True)


def _avi_length(header: bytes) -> int:
    """Return the number of frames of the video stream in the header of an AVI file; 0 if it has none."""
    position = header.find(b"vids")
    while position >= 8 and header[position - 8 : position - 4] != b"strh":
        position = header.find(b"vids", position + 1)
    return int.from_bytes(header[position + 32 : position + 36], "little") if position >= 8 else 0


def _inspect_mp4(file: BinaryIO, size: int) -> Container:
    position, is_damaged, is_edited, is_fragmented, has_index = 0, False, False, False, False
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
        is_box = length >= header and kind.isascii() and kind.decode().isprintable()
        if not is_box or (position + length > size and kind not in (b"moov", b"moof", b"mdat")):
            # In files without fragments, the index lists all frames, wherever they are stored.
            is_damaged = not has_index or (is_fragmented and kind != b"mfra" and not _is_zero(file, position))
            break
        is_damaged = position + length > size
        has_index |= kind == b"moov"
        position += length
    # An edit list may leave out frames that are in the file.
    return Container(is_damaged=is_damaged, counts_frames=is_damaged or not (is_edited or is_fragmented))


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_IN_SEGMENT = frozenset({0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1043A770, 0x1254C367, 0x1941A469})
_IN_CLUSTER = frozenset({0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF})
_AFTER_CLUSTERS = frozenset({0x1C53BB6B, 0x1254C367})  # cues and tags
_ANYWHERE = frozenset({0xEC, 0xBF})  # padding and checksums
_UNKNOWN_SIZE = -1  # written when the output is a pipe


def _inspect_matroska(file: BinaryIO, size: int) -> Container:
    """Go from element to element; segments and clusters are entered, all others are skipped."""
    end, has_cluster, is_cut = 0, False, False
    for identity, length, begin, position in _elements(file, size):
        if 0 < end <= position:  # after the segment
            break
        if identity == _SEGMENT and length != _UNKNOWN_SIZE:
            end = begin + length
            is_cut = end > size
            continue
        has_cluster |= identity == _CLUSTER
        if has_cluster and identity in _AFTER_CLUSTERS and begin + length > size:
            return Container()  # only the index or the tags at the end of the file are cut
        is_damaged = identity not in (_SEGMENT, _CLUSTER) and (length == _UNKNOWN_SIZE or begin + length > size)
        if identity != 0x1A45DFA3 and identity not in _IN_SEGMENT | _IN_CLUSTER | _ANYWHERE | {_SEGMENT}:
            is_damaged = True
        if is_damaged:
            return Container(is_damaged=True)
    return Container(is_damaged=is_cut)


def _elements(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield identity, length, position of content and position of each element that is in a segment or in a cluster."""
    position = 0
    while position < size:
        head = _bytes_at(file, position, 12)
        identity, width = _number(head, keep_marker=True)
        length, more = _number(head[width:], keep_marker=False)
        begin = position + width + more
        if not width or not more:
            yield 0, 0, position, position
            return
        yield identity, length, begin, position
        position = begin if identity in (_SEGMENT, _CLUSTER) else begin + max(length, 0)


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Read an EBML number, whose first byte tells how many follow; (value, number of bytes), 0 bytes if broken."""
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


def _is_zero(file: BinaryIO, position: int) -> bool:
    """Whether a file has only zero bytes from a position on."""
    file.seek(position)
    while block := file.read(2**20):
        if block.strip(b"\0"):
            return False
    return True


_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _inspect_asf(file: BinaryIO, size: int) -> Container:
    """Check the pieces of frames in the packets, which have one size and are counted in the header."""
    position, header = 0, b""
    while position + 24 <= size:
        kind, length = struct.unpack("<16sQ", _bytes_at(file, position, 24))
        if kind == _ASF_DATA:
            break
        if kind == _ASF_HEADER:
            header = file.read(min(length, size))
        if length < 24:
            return Container(is_damaged=True)
        position += length
    else:
        return Container(is_damaged=True)
    begin = header.find(_ASF_FILE)
    properties = header[begin : begin + 104]
    if begin < 0 or len(properties) < 104:
        return Container(is_damaged=True)
    flags, least, most = struct.unpack("<III", properties[88:100])
    if least != most or not least:
        return Container()
    position += 50
    count = (size - position) // least
    is_cut = False
    if not flags & 1:  # the length of a broadcast is not known
        written = int.from_bytes(properties[56:64], "little")
        is_cut = written > count
        count = min(count, written)
    if is_cut:
        return Container(is_damaged=True)
    pieces = _AsfPieces()
    packets = (_bytes_at(file, position + number * least, least) for number in range(count))
    return Container(is_damaged=not all(map(pieces.take, packets)))


class _AsfPieces:
    """Checks that the pieces of each frame follow each other through the packets of an ASF file."""

    def __init__(self) -> None:
        self._rest: dict[int, int] = {}  # bytes that the frame of a stream still lacks

    def take(self, packet: bytes) -> bool:
        """Read one packet; False if it is not one or a piece is missing before it."""
        try:
            return self._take(packet)
        except IndexError:
            return False

    def _take(self, packet: bytes) -> bool:
        position = 1 + (packet[0] & 15) if packet[0] & 0x80 else 0  # error correction
        flags, form = packet[position], packet[position + 1]
        position += 2
        lengths = []
        for shift in (5, 1, 3):  # lengths of the packet, the sequence and the padding
            value, position = _asf_number(packet, position, flags >> shift)
            lengths.append(value)
        end = (lengths[0] or len(packet)) - lengths[2]
        position += 6  # times
        has_several = flags & 1
        several = packet[position] if has_several else 1
        position += has_several
        for _ in range(several & 63):
            stream = packet[position] & 127
            _, position = _asf_number(packet, position + 1, form >> 4)
            offset, position = _asf_number(packet, position, form >> 2)
            extra, position = _asf_number(packet, position, form)
            size = int.from_bytes(packet[position : position + 4], "little") if extra >= 8 else 0
            position += extra
            length = end - position
            if has_several:
                length, position = _asf_number(packet, position, several >> 6)
            position += length
            if not stream or length < 0 or position > end:
                return False
            if size and not self._follows(stream, size, offset, length):
                return False
        return True

    def _follows(self, stream: int, size: int, offset: int, length: int) -> bool:
        rest = self._rest.get(stream, 0)
        self._rest[stream] = size - offset - length
        return (rest == 0 if offset == 0 else rest == size - offset) and self._rest[stream] >= 0


def _asf_number(packet: bytes, position: int, kind: int) -> tuple[int, int]:
    """Read a number of 0, 1, 2 or 4 bytes; return it and the position after it."""
    width = (0, 1, 2, 4)[kind & 3]
    return int.from_bytes(packet[position : position + width], "little"), position + width


_PACK = b"\0\0\1\xba"
_TAIL = 2**20


def _inspect_program_stream(file: BinaryIO, size: int) -> Container:
    """Check that the last packet of an MPEG file is complete; time stamps reveal frames missing before it."""
    start = max(size - _TAIL, 0)
    data = _bytes_at(file, start, size - start)
    position = data.rfind(_PACK)
    if position < 0:
        return Container()
    if len(data) < position + 14:
        return Container(is_damaged=True)
    is_mpeg2 = data[position + 4] >> 6 == 1
    position += 14 + (data[position + 13] & 7) if is_mpeg2 else 12
    while data[position : position + 3] == b"\0\0\1" and data[position + 3 : position + 4] > b"\xba":
        position += 6 + int.from_bytes(data[position + 4 : position + 6], "big")
    return Container(is_damaged=position > len(data))


def _inspect_transport_stream(file: BinaryIO, size: int) -> Container:
    """Check that the last packet of a transport stream is complete; time stamps reveal frames missing before it."""
    for length, sync in ((188, 0), (192, 4), (204, 0)):
        places = range(sync, min(size - sync, 5 * length), length)
        if size >= 2 * length and all(_bytes_at(file, place, 1) == b"G" for place in places):
            rest = size % length
            last = _bytes_at(file, size - rest + sync, 1)
            before = _bytes_at(file, size - rest - length + sync, 1)
            return Container(is_damaged=rest > sync and last == before == b"G")
    return Container()
