"""Checks of arguments where they come in, so that a wrong one is a message about this argument and nothing else.

A bool is no number here: `batch_size=True` is a slip, not 1.
"""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

from condseg_sdk.errors import OptionError

__all__ = ["check_flags", "check_integer", "check_number", "check_path", "check_text"]


def check_integer(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Refuse what is no whole number in a range. NumPy's integers are taken, too.

    Returns:
        The value as a Python int.

    Raises:
        OptionError: `value` is of another type, or out of range.

    Example:
        >>> check_integer("batch_size", 8, least=1)
        8
    """
    number = value if isinstance(value, int) and not isinstance(value, bool) else _as_index(value)
    within = f"at least {least}" if most is None else f"from {least} to {most}"
    if number is None or number < least or (most is not None and number > most):
        raise OptionError(f"{name}={value!r} must be a whole number, {within}")
    return int(number)


def check_number(name: str, value: object, *, above: float, below: float) -> float:
    """Refuse what is no number strictly between two limits; NaN is between none.

    Returns:
        The value as a Python float.

    Raises:
        OptionError: `value` is of another type, or out of range.

    Example:
        >>> check_number("threshold", 0.5, above=0, below=1)
        0.5
    """
    limits = f"must be a number between {above:g} and {below:g}, both excluded"
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise OptionError(f"{name}={value!r} {limits}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not above < number < below:
        raise OptionError(f"{name}={value!r} {limits}")
    return number


def check_flags(**flags: object) -> None:
    """Refuse flags that are neither True nor False.

    Raises:
        OptionError: The first such flag is named.

    Example:
        >>> check_flags(tta=True)
    """
    for name, value in flags.items():
        if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
            raise OptionError(f"{name}={value!r} must be True or False")


def check_text(name: str, value: object) -> str:
    """Refuse what is no string, or an empty one.

    Raises:
        OptionError: `value` is no string, or empty.

    Example:
        >>> check_text("device", "cpu")
        'cpu'
    """
    if not isinstance(value, str) or not value:
        raise OptionError(f"{name}={value!r} must be a string that is not empty")
    return value


def check_path(name: str, value: object) -> Path:
    """Refuse what is no path: of another type, empty, with a null character in it, or too long for the system.

    Raises:
        OptionError: `value` is no path.

    Example:
        >>> check_path("path", "model.onnx").name
        'model.onnx'
    """
    text: Any = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise OptionError(f"{name}={value!r} must be a path, such as 'folder/file'")
    try:
        os.lstat(text)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OptionError(
                f"{name}={text[:60]!r}... is too long for a name: it has {len(text)} characters"
            ) from error
    return Path(text)


def _as_index(value: Any) -> int | None:
    """NumPy's and PyTorch's integers as int; None for what is no whole number."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_") or not hasattr(value, "__index__"):
        return None
    try:
        return int(value.__index__())
    except TypeError:  # a torch tensor of floats, an array of several numbers
        return None
