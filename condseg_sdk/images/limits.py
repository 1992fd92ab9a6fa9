"""What is checked before an image is decoded: that there is a file, its number of pixels, and the memory it needs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from condseg_sdk.errors import CondsegError, ImageError
from condseg_sdk.files import relative_to
from condseg_sdk.images.memory_budget import MAX_DECODE_BYTES, MemoryBudget

__all__ = ["DECODE_BUDGET", "MAX_PIXELS", "check_size", "image_errors", "require_file", "source_path"]

MAX_PIXELS = 178_956_970
"""Largest number of pixels of a file, which is checked before decoding: Pillow's limit for decompression bombs."""

DECODE_BUDGET = MemoryBudget(MAX_DECODE_BYTES)
"""Memory for all images that are being decoded at once."""


def source_path(source: str | os.PathLike[str]) -> Path:
    """Return the path of a source.

    Raises:
        ImageError: The path is empty, which `Path` would take for the current folder.
    """
    if not os.fspath(source):
        raise ImageError("the path is an empty string; pass the path of an image, a folder or a video")
    return Path(source)


def require_file(path: Path) -> None:
    """Check that a path is a file with content.

    Raises:
        ImageError: The path does not exist, is a folder, cannot be read or is empty.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        address = re.match(r"(https?|ftp|file):/", str(path))  # of which a path keeps one slash
        if address:
            raise ImageError(f"{path} is a URL, not a path; download the file and pass its path") from error
        raise ImageError(f"{path} does not exist; check the path{relative_to(path)}") from error
    except (OSError, ValueError) as error:  # no permission, name too long, a null byte in it
        raise ImageError(f"{path} cannot be opened ({error}); check its name and permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder, not a file; pass one of the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path} is a pipe or a device, not a file; read it and pass the bytes")
    if status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again")


@contextmanager
def image_errors(name: str) -> Iterator[None]:
    """Turn every error of Pillow into an ImageError."""
    try:
        yield
    except CondsegError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory than is free; make it smaller, or free memory") from error
    except Exception as error:  # OSError, ValueError, SyntaxError, struct.error, EOFError, ...
        raise ImageError(f"{name} is damaged or incomplete ({error}); copy or export it again") from error


def check_size(size: tuple[int, int], cost: int, name: str) -> None:
    """Check the size of an image before it is decoded.

    Args:
        size: (width, height) in pixels.
        cost: Number of bytes that decoding needs for each pixel.
        name: Name of the image for messages.

    Raises:
        ImageError: It has more pixels than `MAX_PIXELS`, or needs more memory than `MAX_DECODE_BYTES`.
    """
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS:
        remedy = "make it smaller, or decode it yourself and pass the array"
        raise ImageError(f"{name} has {pixels:,} pixels, more than {MAX_PIXELS:,} pixels; {remedy}")
    if pixels * cost > MAX_DECODE_BYTES:
        needed = f"{pixels:,} pixels, which take {pixels * cost / 1e9:.1f} GB to decode"
        remedy = "make it smaller, save it as PNG, or decode it yourself and pass the array"
        raise ImageError(f"{name} has {needed}, more than {MAX_DECODE_BYTES / 1e9:.1f} GB; {remedy}")
