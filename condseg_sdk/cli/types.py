"""Types of arguments for argparse, whose own would name a Python function in the message of an error."""

from __future__ import annotations

import argparse

__all__ = ["integer", "real", "reals"]


def integer(text: str) -> int:
    """Return a whole number.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> integer("8")
        8
    """
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, such as 8") from error


def real(text: str) -> float:
    """Return a number.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> real("0.5")
        0.5
    """
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, such as 0.5") from error


def reals(text: str) -> list[float]:
    """Return numbers that commas separate.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> reals("0.5,0.25")
        [0.5, 0.25]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        message = f"{text!r} is not a number, or several with commas between them, such as 0.5 or 0.5,0.25"
        raise argparse.ArgumentTypeError(message) from error
