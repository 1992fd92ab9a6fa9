"""Reads and writes all JSON of this project; reading returns plain data or raises an error of one line.

Callers check what the data means. Size, depth and the numbers of a file are limited, so that no value of a damaged file
overflows or exhausts the stack elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from condseg_sdk.errors import CondsegError
from condseg_sdk.files import write_text

__all__ = ["MAX_BYTES", "MAX_DEPTH", "parse_json", "read_json", "read_json_object", "write_json"]

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
GREATEST_INTEGER = 2**64  # identifiers of other programs still fit
# Numbers that match neither are finite and below GREATEST_INTEGER; the others are checked one by one.
LONG_NUMBER = re.compile(r"\d{19}|[eE]\+?\d{3}")

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(
    path: str | os.PathLike[str],
    *,
    error: type[CondsegError],
    remedy: str,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
) -> Any:
    """Read a JSON file.

    The file may be UTF-8 with or without a byte order mark, UTF-16 or UTF-32.

    Args:
        path: Path of a regular file.
        error: Class of the error to raise.
        remedy: What the user can do about a damaged file, for the message, such as "download the checkpoint again".
        max_bytes: Largest size of the file.
        max_depth: Largest depth of nested lists and objects.

    Returns:
        Dictionaries, lists, strings, booleans, None, and finite numbers; integers are smaller than 2**64.

    Raises:
        CondsegError: The file cannot be read, is too large, or is not valid JSON of this kind; an instance of `error`.

    Example:
        >>> import tempfile
        >>> from condseg_sdk.errors import DatasetError
        >>> path = Path(tempfile.mkdtemp(), "a.json")
        >>> path.write_text('{"a": 1}')
        8
        >>> read_json(path, error=DatasetError, remedy="export it again")
        {'a': 1}
    """
    path = Path(path)
    try:
        is_special = path.exists() and not path.is_file()  # a pipe or a device: reading it might never end
        content = b"" if is_special else _read_bytes(path, max_bytes + 1)
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist; {remedy}") from cause
    except (OSError, ValueError) as cause:  # ValueError: a path with a null character
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path} cannot be read ({reason}); check its name and permissions") from cause
    if is_special:
        raise error(f"{path} is not a regular file; pass the JSON file itself")
    if len(content) > max_bytes:
        raise error(f"{path} has more than {max_bytes // 2**20} MiB, too much for a JSON file of its kind; {remedy}")
    return parse_json(content, name=path, error=error, remedy=remedy, max_depth=max_depth)


def read_json_object(
    path: str | os.PathLike[str], *, error: type[CondsegError], remedy: str, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Read a JSON file that contains an object; `read_json` describes the arguments.

    Raises:
        CondsegError: As in `read_json`, or the file is not an object.
    """
    values = read_json(path, error=error, remedy=remedy, max_bytes=max_bytes)
    if not isinstance(values, dict):
        raise error(f"{path} is not a JSON object; {remedy}")
    return values


def parse_json(
    content: str | bytes, *, name: object, error: type[CondsegError], remedy: str, max_depth: int = MAX_DEPTH
) -> Any:
    """Parse JSON in memory: text, or bytes in UTF-8, UTF-16 or UTF-32. Messages call its source `name`.

    The other arguments and the returned value are the same as in `read_json`.

    Raises:
        CondsegError: The content is not valid JSON of this kind; an instance of `error`.

    Example:
        >>> from condseg_sdk.errors import DatasetError
        >>> parse_json(b"[1, 2.5]", name="a.json", error=DatasetError, remedy="export it again")
        [1, 2.5]
    """
    try:
        text = content if isinstance(content, str) else _decode(content)
        hooks: dict[str, Any] = {"parse_int": _integer, "parse_float": _finite} if LONG_NUMBER.search(text) else {}
        values = json.loads(text, parse_constant=_finite, **hooks)
        _check_depth(values, max_depth)
        if SURROGATE.search(text):
            # A lone surrogate cannot be written or printed, unless it stands for a byte of a file name.
            json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except RecursionError as cause:
        raise error(f"{name} is JSON that is nested too deeply; {remedy}") from cause
    except (ValueError, MemoryError) as cause:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise error(f"{name} is not JSON ({str(cause) or 'it needs too much memory'}); {remedy}") from cause
    return values


def write_json(path: str | os.PathLike[str], values: Any, *, indent: int = 1) -> Path:
    r"""Write JSON to a file atomically: a reader never sees half of it.

    Args:
        path: Path of the file. An existing file is replaced; the folder must exist.
        values: Dictionaries, lists, strings, booleans, None, and finite numbers.
        indent: Number of spaces for each level.

    Raises:
        OptionError: The file cannot be written.
        ValueError: A number is not finite, which JSON cannot hold and `read_json` refuses.

    Example:
        >>> import tempfile
        >>> write_json(f"{tempfile.mkdtemp()}/a.json", {"a": 1}).read_text()
        '{\n "a": 1\n}\n'
    """
    return write_text(path, json.dumps(values, indent=indent, allow_nan=False) + "\n")


def _read_bytes(path: Path, limit: int) -> bytes:
    content = bytearray()
    with path.open("rb") as file:
        # In blocks: a single read of up to n bytes would allocate n bytes.
        while len(content) < limit and (block := file.read(min(limit - len(content), 2**20))):
            content += block
    return bytes(content)


def _decode(content: bytes) -> str:
    encoding = json.detect_encoding(content)  # also removes a byte order mark
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as cause:
        raise ValueError(f"byte {cause.start} is not {encoding.removesuffix('-sig').upper()} text") from cause


def _integer(digits: str) -> int:
    if len(digits) > len(str(GREATEST_INTEGER)) + 1 or abs(int(digits)) >= GREATEST_INTEGER:
        raise ValueError(f"the number {digits[:12]}... of {len(digits)} digits is too large")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _check_depth(values: Any, max_depth: int) -> None:
    level, depth = [values] if isinstance(values, (dict, list)) else [], 0
    while level:
        depth += 1
        if depth > max_depth:
            raise RecursionError
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
