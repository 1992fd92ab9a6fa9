"""Reads text files as people and programs write them: lists of names and tables."""

from __future__ import annotations

import codecs
from pathlib import Path

from condseg_sdk.errors import DatasetError

__all__ = ["MAX_BYTES", "read_text"]

MAX_BYTES = 256 * 2**20  # a few million rows
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, *, remedy: str) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as Windows programs write them.

    Bytes that are not UTF-8 are kept as in file names ("surrogateescape"), so that a list of names still names its
    files.

    Args:
        path: Path of the file.
        remedy: What the user can do about a file that is not text, for the message.

    Raises:
        DatasetError: The file cannot be read, is not text, or has more than `MAX_BYTES`.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device: reading it might never end
            raise DatasetError(f"{path} is not a regular file; pass a text file")
        if path.exists() and path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path} has more than {MAX_BYTES // 2**20} MiB, too much for a list; {remedy}")
        content = path.read_bytes()
        encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
        text = content.decode(encoding, "strict" if "16" in encoding or "32" in encoding else "surrogateescape")
    except (OSError, ValueError) as error:  # ValueError: a path with a null character, UnicodeDecodeError
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read ({reason}); {remedy}") from error
    if "\0" in text:
        raise DatasetError(f"{path} is not text: it contains null characters; {remedy}, saved as UTF-8")
    return text
