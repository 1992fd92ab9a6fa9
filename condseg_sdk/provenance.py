"""Seals output files and recognizes them, so that a command replaces only files that this package wrote.

A seal contains the name and version of this package and the SHA-256 of the rest of the content. It stays in the file
when the file or its folder is copied, moved or renamed, and it breaks when somebody edits the file: a mask that was
corrected by hand is never replaced. Each format has a place for the seal that its readers ignore:

- PNG: a text chunk "Software".
- JSON: a field "software".
- Markdown and HTML: a comment in the last line. It may also list the SHA-256 of CSV tables in the same folder, which
  have no such place.
- Text of protocol buffers (.pbtxt): a comment in the last line.
- ONNX: an entry in the metadata, the last bytes of the file.
- DICOM: the padding that may follow the data set, the last bytes of the file.
- MP4, MOV, Matroska, AVI: a block of the container without content ("free", Void, "JUNK"), the last bytes of the file.

Label files of other kinds (text, CSV, copies of images) are listed with their SHA-256 in checksums.json, in their
folder or in one above it, which is sealed itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from condseg_sdk._version import __version__
from condseg_sdk.errors import CondsegError, OutputError
from condseg_sdk.json_files import read_json
from condseg_sdk.words import pluralize

__all__ = [
    "CHECKSUMS",
    "add_checksums",
    "check_replaced",
    "is_ours",
    "read_statement",
    "seal_dicom",
    "seal_json",
    "seal_onnx",
    "seal_pbtxt",
    "seal_png",
    "seal_text",
    "seal_video",
    "write_sealed_json",
]

CHECKSUMS = "checksums.json"
"""Name of the sealed list of files that have no place for a seal."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SEAL = re.compile(rb"condseg_sdk [\w.+-]{1,40} sha256=([0-9a-f]{64})")
_COMMENT = re.compile(rb"<!-- condseg_sdk [\w.+-]{1,40} sha256=([0-9a-f]{64}) -->\n\Z")
_PBTXT_COMMENT = re.compile(rb"# condseg_sdk [\w.+-]{1,40} sha256=([0-9a-f]{64})\n\Z")
_ONNX_KEY = b"condseg_sdk.seal"
_VIDEO_SEAL = 128  # bytes of a video's seal with the spaces behind it
_PADDING = b"\xfc\xff\xfc\xffOB\0\0"  # tag and type of Data Set Trailing Padding, little endian with explicit types


def check_replaced(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Check, before any work, that only files of this package would be replaced.

    Args:
        paths: Paths of the files to write; missing ones are ignored.
        overwrite: Whether to also replace other files. A folder is never replaced.

    Raises:
        OutputError: A file was not written by this package, was changed since, or is write-protected.
    """
    others: list[tuple[Path, str]] = []
    for path in paths:
        if not os.path.lexists(path):
            continue
        if path.is_dir():
            raise OutputError(
                f"{path} is a folder, but a file must be written there; choose another output folder", path=path
            )
        if overwrite:
            continue
        if path.exists() and not path.stat().st_mode & 0o222:
            others.append((path, "is write-protected"))
        elif not is_ours(path):
            others.append(
                (path, "was not written by condseg, was changed since, or is left from a run that was killed")
            )
    if others:
        path, reason = others[0]
        more = f" (and {pluralize(len(others) - 1, 'more such file')})" if len(others) > 1 else ""
        raise OutputError(f"{path} {reason}{more}; choose another output folder, or add --overwrite", path=path)


def is_ours(path: Path) -> bool:
    """Return whether this package wrote a file and nobody has changed it since."""
    check = _CHECKS.get(path.suffix.lower())
    try:
        if not path.is_file():  # reading a pipe might never end
            return False
        return (check is not None and check(path)) or _is_listed(path)
    except (CondsegError, OSError, ValueError, struct.error):  # not readable in the format of its suffix
        return False


def read_statement(path: Path) -> dict[str, Any]:
    """Read what a sealed PNG or JSON file states about its prediction: threshold, lowest score and origin.

    Args:
        path: File that may have been written by this package.

    Returns:
        The fields of `Segmentation.statement`; empty if the file is missing, is not ours, was changed, or states
        nothing.
    """
    if not path.is_file() or not is_ours(path):
        return {}
    if path.suffix.lower() == ".json":
        values = read_json(path, error=CondsegError, remedy="write it again")
        limits = {name: values[name] for name in ("threshold", "min_score") if values.get(name) is not None}
        return {**limits, **(values.get("origin") or {})}
    key = b"condseg_sdk\0"
    chunks = _png_chunks(path.read_bytes()) if path.suffix.lower() == ".png" else ()
    texts = [content for kind, content in chunks if kind == b"tEXt" and content.startswith(key)]
    return dict(json.loads(texts[0].removeprefix(key))) if texts else {}


def seal_png(data: bytes) -> bytes:
    """Add a seal to the bytes of a PNG file, as a text chunk."""
    text = b"Software\0" + _seal(_png_digest(data))
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    header = len(_PNG_SIGNATURE) + 25  # IHDR is always the first chunk and always of this length
    return data[:header] + chunk + data[header:]


def seal_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add a seal to the values of a JSON object, as the field "software".

    Example:
        >>> sorted(seal_json({"dice": 0.9}))
        ['dice', 'software']
    """
    return {**values, "software": _seal(_json_digest(values)).decode()}


def write_sealed_json(path: Path, values: Mapping[str, Iterator[Any] | list[Any] | dict[str, Any]]) -> None:
    """Write a JSON object with a seal, taking the items of its lists one after the other.

    Args:
        path: File to write.
        values: The object. The items of an iterator are written as a list.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(text: str) -> None:
            file.write(text.encode())
            digest.update(text.encode())

        for number, (key, value) in enumerate(sorted(values.items())):
            write(f"{', ' if number else '{'}{json.dumps(key)}: ")
            if isinstance(value, Iterator):
                write("[")
                for place, item in enumerate(value):
                    write(f"{', ' if place else ''}{json.dumps(item, sort_keys=True)}")
                write("]")
            else:
                write(json.dumps(value, sort_keys=True))
        digest.update(b"}")
        file.write(f', "software": {json.dumps(_seal(digest).decode())}}}\n'.encode())


def add_checksums(path: Path, before: Path, digests: Mapping[str, str]) -> None:
    """Write a sealed list of files and their SHA-256, with the entries of an earlier list whose files still exist.

    Args:
        path: File to write.
        before: Where the earlier list may be.
        digests: SHA-256 of the files, by their paths below the list's folder.
    """
    known = _listed(before, _stamp(before)) if before.is_file() else {}
    kept = {name: digest for name, digest in known.items() if (before.parent / name).is_file()}
    path.write_text(json.dumps(seal_json({"files": {**kept, **digests}}), indent=1) + "\n", encoding="utf-8")


def seal_text(text: str, *, tables: Iterable[Path] = ()) -> bytes:
    """Encode a Markdown or HTML text as UTF-8 with a seal in a comment at its end.

    Args:
        text: The text. Characters that UTF-8 cannot hold, such as bytes of a file name, are escaped.
        tables: Paths of CSV files in the same folder that the seal covers as well.
    """
    listed = "".join(f"<!-- {path.name} sha256={_file_digest(path)} -->\n" for path in tables)
    body = f"{text.rstrip()}\n\n{listed}".encode(errors="backslashreplace")
    return body + b"<!-- " + _seal(hashlib.sha256(body)) + b" -->\n"


def seal_pbtxt(text: str) -> bytes:
    """Encode a protocol buffer in text format as UTF-8 with a seal in a comment at its end.

    Example:
        >>> seal_pbtxt("max_batch_size: 8").splitlines()[0]
        b'max_batch_size: 8'
    """
    body = f"{text}\n".encode()
    return body + b"# " + _seal(hashlib.sha256(body)) + b"\n"


def seal_onnx(data: bytes) -> bytes:
    """Add a seal to a serialized ONNX model, as its last entry of metadata.

    Two serialized messages in a row are read as one message with the entries of both.
    """
    value = _seal(hashlib.sha256(data))
    entry = _field(1, _ONNX_KEY) + _field(2, value)  # StringStringEntryProto
    return data + _field(14, entry)  # ModelProto.metadata_props


def seal_dicom(data: bytes) -> bytes:
    """Add a seal to the bytes of a DICOM file in explicit little endian, as the padding after the data set."""
    text = _seal(hashlib.sha256(data))
    text += b" " * (len(text) % 2)  # every value has an even length
    return data + _PADDING + len(text).to_bytes(4, "little") + text


def seal_video(path: Path, statement: str) -> None:
    """Add a seal to a video file, as a block at its end that players skip.

    Args:
        path: File with the suffix of its container.
        statement: Text about the video, which stands before the seal.
    """
    with path.open("ab") as file:
        file.write(_skipped_block(path.suffix, statement.encode()))
    text = _seal_of_file(path).ljust(_VIDEO_SEAL)
    with path.open("ab") as file:
        file.write(_skipped_block(path.suffix, text))


def _skipped_block(suffix: str, content: bytes) -> bytes:
    """Make a block that readers of a container skip."""
    content += b" " * (len(content) % 2)  # AVI aligns blocks
    if suffix.lower() == ".avi":
        return b"JUNK" + struct.pack("<I", len(content)) + content
    if suffix.lower() == ".mkv":
        return b"\xec" + (1 << 56 | len(content)).to_bytes(8, "big") + content
    return struct.pack(">I4s", 8 + len(content), b"free") + content


def _seal_of_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return _seal(hashlib.file_digest(file, "sha256"))


def _seal(digest: Any) -> bytes:
    return f"condseg_sdk {__version__} sha256={digest.hexdigest()}".encode()


def _field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field of a protocol buffer."""
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def _png_digest(data: bytes) -> Any:
    """Hash all chunks except for the seal."""
    digest = hashlib.sha256()
    for kind, content in _png_chunks(data):
        if not (kind == b"tEXt" and _SEAL.search(content)):
            digest.update(kind + content)
    return digest


def _png_chunks(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    if not data.startswith(_PNG_SIGNATURE):
        raise ValueError("not a PNG file")
    place = len(_PNG_SIGNATURE)
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        if struct.unpack_from(">I", data, place + 8 + length)[0] != zlib.crc32(kind + content):
            raise ValueError("a damaged PNG file")
        yield kind, content
        place += length + 12


def _json_digest(values: Mapping[str, Any]) -> Any:
    rest = {key: value for key, value in values.items() if key != "software"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode())


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_our_png(path: Path) -> bool:
    data = path.read_bytes()
    seals = [_SEAL.search(content) for kind, content in _png_chunks(data) if kind == b"tEXt"]
    found = [seal[1].decode() for seal in seals if seal]
    return found == [_png_digest(data).hexdigest()]


def _is_our_json(path: Path) -> bool:
    values = read_json(path, error=CondsegError, remedy="write it again")
    seal = _SEAL.fullmatch(str(values.get("software")).encode()) if isinstance(values, dict) else None
    return seal is not None and seal[1].decode() == _json_digest(values).hexdigest()


def _is_our_text(path: Path, comment: re.Pattern[bytes] = _COMMENT) -> bool:
    data = path.read_bytes()
    seal = comment.search(data)
    return seal is not None and hashlib.sha256(data[: seal.start()]).hexdigest() == seal[1].decode()


def _is_our_table(path: Path) -> bool:
    """Return whether a sealed file of the same folder lists this content."""
    line = re.compile(rf"{re.escape(path.name)}\W+(sha256=)?{_file_digest(path)}\b")
    beside = [file for file in path.parent.iterdir() if file.suffix in (".md", ".json") and file.is_file()]
    return any(line.search(file.read_text(encoding="utf-8", errors="replace")) and is_ours(file) for file in beside)


def _is_listed(path: Path) -> bool:
    """Return whether a sealed list, in the file's folder or in one above it, has this file with this content."""
    for folder in path.absolute().parents:
        file = folder / CHECKSUMS
        if file.is_file() and path.name != CHECKSUMS:
            listed = _listed(file, _stamp(file))
            return listed.get(path.absolute().relative_to(folder).as_posix()) == _file_digest(path)
    return False


@lru_cache(maxsize=1)
def _listed(file: Path, _stamp: tuple[int, int]) -> dict[str, str]:
    """Read a sealed list once, as long as it is not changed; it is empty if the seal is broken or it is no list.

    The JSON of an image named checksums.png has a seal, too.
    """
    files = read_json(file, error=CondsegError, remedy="write it again").get("files") if is_ours(file) else None
    return dict(files) if isinstance(files, dict) else {}


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def _is_our_onnx(path: Path) -> bool:
    tail = len(seal_onnx(b""))
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - tail - 40))  # the version in the file may be longer than this one
        end = file.read()
        start = end.rfind(_ONNX_KEY)
        seal = _SEAL.search(end, start) if start >= 0 else None
        if seal is None or seal.end() != len(end):
            return False
        entry = _field(1, _ONNX_KEY) + _field(2, seal[0])
        return _digest_of(file, size - len(_field(14, entry))) == seal[1].decode()


def _is_our_dicom(path: Path) -> bool:
    data = path.read_bytes()
    start = data.rfind(_PADDING)
    length, text = data[start + len(_PADDING) :][:4], data[start + len(_PADDING) + 4 :]
    if start < 0 or int.from_bytes(length, "little") != len(text):
        return False
    seal = _SEAL.fullmatch(text.rstrip(b" "))
    return seal is not None and hashlib.sha256(data[:start]).hexdigest() == seal[1].decode()


def _is_our_video(path: Path) -> bool:
    tail = _skipped_block(path.suffix, b" " * _VIDEO_SEAL)
    with path.open("rb") as file:
        body = file.seek(0, os.SEEK_END) - len(tail)
        file.seek(max(0, body))
        end = file.read()
        seal = _SEAL.fullmatch(end[len(tail) - _VIDEO_SEAL :].rstrip(b" "))
        if body < 0 or seal is None or end[: len(tail) - _VIDEO_SEAL] != tail[: len(tail) - _VIDEO_SEAL]:
            return False
        return _digest_of(file, body) == seal[1].decode()


def _digest_of(file: BinaryIO, size: int) -> str:
    """Hash the first bytes of an open file."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


_CHECKS: dict[str, Callable[[Path], bool]] = {
    ".dcm": _is_our_dicom,
    ".png": _is_our_png,
    ".json": _is_our_json,
    ".geojson": _is_our_json,
    ".md": _is_our_text,
    ".html": _is_our_text,
    ".pbtxt": partial(_is_our_text, comment=_PBTXT_COMMENT),
    ".csv": _is_our_table,
    ".onnx": _is_our_onnx,
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".avi"), _is_our_video),
}
