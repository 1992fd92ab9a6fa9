"""Checks of arguments at the public functions, so that a wrong value gives an error that names the argument.

A bool does not count as a number: `batch_size=True` is a mistake, not 1.
"""

from __future__ import annotations

import errno
import math
import os
import reprlib
from pathlib import Path
from typing import Any, get_args

from condseg_sdk.errors import OptionError

__all__ = [
    "check_choice",
    "check_flags",
    "check_integer",
    "check_number",
    "check_path",
    "check_seed",
    "check_spacing",
    "check_text",
    "check_threshold",
]

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_shown = _short.repr  # a damaged file may contain values of a megabyte

MAX_SEED = 2**32 - 1  # the largest that NumPy, PyTorch and Lightning all accept


def check_choice(name: str, value: object, choices: Any) -> None:
    """Check that a string argument is one of its `Literal` choices.

    Raises:
        OptionError: `value` is not one of `choices`.

    Example:
        >>> from typing import Literal
        >>> check_choice("color_order", "rgb", Literal["rgb", "bgr"])
    """
    allowed = get_args(choices)
    if value not in allowed:
        raise OptionError(f"{name}={_shown(value)} is not one of {', '.join(map(repr, allowed))}", option=name)


def check_seed(seed: object) -> None:
    """Check that all random number generators accept a seed.

    Raises:
        OptionError: `seed` is not a whole number from 0 to 2**32 - 1.

    Example:
        >>> check_seed(2**32 - 1)
    """
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise OptionError(f"seed={seed!r} must be a whole number from 0 to {MAX_SEED}", option="seed")


def check_integer(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Check that a value is a whole number in a range. NumPy's integers are accepted, too.

    Raises:
        OptionError: `value` has another type or is out of range.

    Example:
        >>> check_integer("batch_size", 8, least=1)
        8
    """
    number = value if isinstance(value, int) and not isinstance(value, bool) else _as_index(value)
    within = f"at least {least}" if most is None else f"from {least} to {most}"
    if number is None or number < least or (most is not None and number > most):
        raise OptionError(f"{name}={_shown(value)} must be a whole number, {within}", option=name)
    return int(number)


def check_number(name: str, value: object, *, above: float, below: float) -> float:
    """Check that a value is a number strictly between two limits, and not NaN.

    Raises:
        OptionError: `value` has another type or is out of range.

    Example:
        >>> check_number("threshold", 0.5, above=0, below=1)
        0.5
    """
    limits = f"must be a number between {above:g} and {below:g}, both excluded"
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise OptionError(f"{name}={_shown(value)} {limits}", option=name)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not above < number < below:
        raise OptionError(f"{name}={_shown(value)} {limits}", option=name)
    return number


def check_threshold(value: object) -> float:
    """Check that the threshold of a probability is strictly between 0 and 1.

    Raises:
        OptionError: `value` is not a number, or out of range.

    Example:
        >>> check_threshold(0.5)
        0.5
    """
    return check_number("threshold", value, above=0, below=1)


def check_spacing(spacing: Any) -> tuple[float, float]:
    """Check that distances between pixels are one or two numbers above 0.

    Args:
        spacing: One number for both directions, or the distances between rows and between columns.

    Returns:
        The distance between rows and that between columns.

    Raises:
        OptionError: `spacing` is something else.

    Example:
        >>> check_spacing(0.5), check_spacing([0.5, 0.25])
        ((0.5, 0.5), (0.5, 0.25))
    """
    values = [*spacing] if isinstance(spacing, (list, tuple)) or getattr(spacing, "ndim", 0) == 1 else [spacing]
    try:
        row, column = [check_number("spacing", value, above=0, below=math.inf) for value in values * (3 - len(values))]
    except (TypeError, ValueError) as error:  # OptionError is a ValueError
        message = f"spacing={_shown(spacing)} must be one or two numbers above 0, in millimeters"
        raise OptionError(message, option="spacing") from error
    return row, column


def check_flags(**flags: object) -> None:
    """Check that flags are True or False.

    Raises:
        OptionError: The first such flag is named.

    Example:
        >>> check_flags(tta=True)
    """
    for name, value in flags.items():
        if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
            raise OptionError(f"{name}={_shown(value)} must be True or False", option=name)


def check_text(name: str, value: object) -> str:
    """Check that a value is a string that is not empty.

    Raises:
        OptionError: `value` is not a string, or is empty.

    Example:
        >>> check_text("device", "cpu")
        'cpu'
    """
    if not isinstance(value, str) or not value:
        raise OptionError(f"{name}={_shown(value)} must be a string that is not empty", option=name)
    return value


def check_path(name: str, value: object) -> Path:
    """Check that a value is a path that is not empty, has no null character and is not too long for the system.

    Raises:
        OptionError: `value` is not such a path.

    Example:
        >>> check_path("path", "model.onnx").name
        'model.onnx'
    """
    text: Any = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise OptionError(f"{name}={_shown(value)} must be a path, such as 'folder/file'", option=name)
    try:
        os.lstat(text)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OptionError(
                f"{name}={text[:60]!r}... is too long for a name: it has {len(text)} characters", option=name
            ) from error
    return Path(text)


def _as_index(value: Any) -> int | None:
    """NumPy's and PyTorch's integers as int; None for anything but a whole number."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_") or not hasattr(value, "__index__"):
        return None
    try:
        return int(value.__index__())
    except TypeError:  # a torch tensor of floats, an array of several numbers
        return None
