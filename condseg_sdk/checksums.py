"""Is a file the one it should be? Asked before anything in it is read."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from condseg_sdk.errors import CheckpointError

__all__ = ["SHA256", "check_sha256", "sha256_of"]

SHA256 = re.compile("[0-9a-f]{64}")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, 64 lower-case hexadecimal digits.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check that the file is there") from error


def check_sha256(path: str | os.PathLike[str], expected: str, *, remedy: str) -> None:
    """Refuse a file that is not the one expected.

    Args:
        path: the file.
        expected: its SHA-256.
        remedy: what the user can do about a wrong one, for the message.

    Raises:
        CheckpointError: the content is another one (the message names both hashes), or it cannot be read.
    """
    found = sha256_of(path)
    if found != expected.lower():
        raise CheckpointError(f"{path} has sha256 {found}, expected {expected}: {remedy}")
