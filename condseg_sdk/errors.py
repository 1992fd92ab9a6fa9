"""The errors a user of condseg_sdk can meet: each says in one line what was wrong and what to do about it.

Nothing else is meant to reach a user: what Pillow, OpenCV, ONNX Runtime or safetensors raise is caught where
it happens and kept as the `__cause__` of one of these.
"""

from __future__ import annotations

import re
from typing import Any, get_args

__all__ = [
    "CheckpointError",
    "CondsegError",
    "DatasetError",
    "DeviceError",
    "ExportError",
    "ImageError",
    "InstallationError",
    "ModelNotFoundError",
    "OptionError",
    "check_choice",
    "check_seed",
]

LONGEST_LINE = 2000
NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # control characters, which a terminal would obey
GREATEST_SEED = 2**32 - 1
"""What NumPy, PyTorch and Lightning all take."""


class CondsegError(Exception):
    """The base of every error condseg_sdk raises on purpose.

    Args:
        message: What was wrong, by name, and the remedy. `str(error)` is always a single line,
            without control characters and of at most some 2,000 characters.

    Example:
        >>> from condseg_sdk.errors import CondsegError
        >>> from condseg_sdk.images.load import load_image
        >>> try:
        ...     load_image("missing.jpg")
        ... except CondsegError as error:
        ...     print(type(error).__name__)
        ImageError
    """

    def __init__(self, message: str) -> None:
        line = NOT_PRINTED.sub(" ", " ".join(message.splitlines()))
        if len(line) > LONGEST_LINE:  # it quotes what a damaged file holds; the remedy is at the end
            line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
        super().__init__(line)


class ImageError(CondsegError):
    """A source cannot be read as one image: missing, damaged, too large, of a kind that is not supported."""


class ModelNotFoundError(CondsegError):
    """A model name, folder, file or repository that does not exist; the message lists the nearest names."""


class CheckpointError(CondsegError):
    """A checkpoint that exists but is incomplete, damaged, or does not fit the network it is meant for."""


class DeviceError(CondsegError):
    """A device or an execution provider that was asked for and cannot be had on this machine."""


class OptionError(CondsegError, ValueError):
    """An argument whose value is not allowed. Also a `ValueError`."""


class DatasetError(CondsegError):
    """A training set that cannot be trained on: unpaired files, empty masks, sizes that differ."""


class ExportError(CondsegError):
    """An export that failed, or whose result does not answer as the network does."""


class InstallationError(CondsegError, ImportError):
    """A library that condseg_sdk needs is missing, damaged, or lacks libraries of the system. Also an `ImportError`."""


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse a string argument that is none of its `Literal` choices.

    Args:
        name: The argument's name, for the message.
        value: What the caller gave.
        choices: The `Literal` type the argument is annotated with.

    Raises:
        OptionError: `value` is not one of `choices`.

    Example:
        >>> from typing import Literal
        >>> check_choice("color_order", "rgb", Literal["rgb", "bgr"])
    """
    allowed = get_args(choices)
    if value not in allowed:
        raise OptionError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")


def check_seed(seed: object) -> None:
    """Refuse a seed that not all sources of random numbers take.

    Raises:
        OptionError: `seed` is no whole number from 0 to 2**32 - 1.

    Example:
        >>> check_seed(2**32 - 1)
    """
    if type(seed) is not int or not 0 <= seed <= GREATEST_SEED:
        raise OptionError(f"seed={seed!r} must be a whole number from 0 to {GREATEST_SEED}")
