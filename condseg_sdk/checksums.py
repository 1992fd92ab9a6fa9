"""SHA-256 of files, compared before their content is read."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from condseg_sdk.errors import CheckpointError

__all__ = ["SHA256", "check_sha256", "sha256_of"]

SHA256 = re.compile("[0-9a-f]{64}")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a file, 64 lower-case hexadecimal digits.

    Raises:
        CheckpointError: The file cannot be read.

    Example:
        >>> len(sha256_of(__file__))
        64
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check that the file is there") from error


def check_sha256(path: str | os.PathLike[str], expected: str, *, remedy: str) -> None:
    """Raise an error if the SHA-256 of a file is not the expected one.

    Args:
        path: Path of the file.
        expected: The SHA-256 it should have.
        remedy: Remedy for the error message.

    Raises:
        CheckpointError: The SHA-256 differs (the message names both), or the file cannot be read.
    """
    try:
        found = sha256_of(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}, or {remedy}") from error
    if found != expected.lower():
        raise CheckpointError(f"{path} is damaged, its sha256 is {found}, expected {expected}: {remedy}")
