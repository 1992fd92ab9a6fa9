"""Reads NumPy files that contain one array (.npy, .npz), after a check of the header.

A small damaged or hostile file can announce an array of any size, or a pickle that runs code. Both are refused before
memory is allocated.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from condseg_sdk.errors import CondsegError, DatasetError

__all__ = ["ARRAY_SUFFIXES", "MAX_BYTES", "array_bytes", "read_array"]

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
MAX_BYTES = 512 * 2**20
"""Arrays of more bytes are refused before they are read: as uint8, this holds 536 megapixels."""


def read_array(path: Path) -> NDArray[Any]:
    """Read the array of a .npy file, or the array named "mask" (or the only one) of a .npz file.

    Returns:
        Booleans, integers or floats of any shape.

    Raises:
        DatasetError: The file is damaged, contains several arrays or something other than numbers, or needs more than
            `MAX_BYTES`.
    """
    with _translated_errors(path):
        with _opened(path) as file:
            _read_header(file, path)
        with _opened(path) as file:
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
            return array


def array_bytes(path: Path) -> int:
    """Read from a file's header how many bytes its array needs in memory.

    Raises:
        DatasetError: As in `read_array`.
    """
    with _translated_errors(path), _opened(path) as file:
        return _read_header(file, path)


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Turn every error of NumPy and zipfile into a DatasetError."""
    try:
        yield
    except CondsegError:
        raise
    # ValueError, SyntaxError, TokenError, TypeError, BadZipFile, NotImplementedError, RuntimeError, zlib.error, ...
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DatasetError(
            f"{path} is not a readable NumPy array ({reason[:200]}); save it again with numpy.save"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the bytes of the array, in a file or in an archive."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            yield file
            return
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if len(names) != 1 and "mask" not in names:
                raise DatasetError(
                    f"{path} contains the arrays {str(names)[:200]}: rename the array with the mask to 'mask'"
                )
            index = names.index("mask") if "mask" in names else 0
            with archive.open(archive.infolist()[index]) as entry:
                yield entry


def _read_header(file: IO[bytes], path: Path) -> int:
    """Check that the array can be read, and return its number of bytes."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise DatasetError(f"{path} is a NumPy file of version {version}; save plain numbers with numpy.save")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "buif":
        raise DatasetError(f"{path} is an array of type {str(dtype)[:80]}; a mask is one (H, W) array of numbers")
    size = int(math.prod(shape) * dtype.itemsize)
    if any(length < 0 for length in shape) or size > MAX_BYTES:
        raise DatasetError(
            f"{path} is an array of shape {str(shape)[:80]} and type {dtype}, {size / 2**30:.1f} GiB; a mask may have "
            f"{MAX_BYTES // 2**20} MiB: save it as uint8, or make it smaller"
        )
    return size
