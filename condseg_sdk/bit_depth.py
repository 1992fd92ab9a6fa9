"""How many bits of a 16-bit image are in use, and 16-bit values -> uint8.

Cameras, scanners and endoscopes of 10, 12 or 14 bits store their values in 16 bits. Read as 16 bits they would be
almost black.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import ImageError
from condseg_sdk.options import check_integer

__all__ = ["COMMON_BITS", "BitDepth", "bits_needed", "check_bits", "scale_to_uint8"]

COMMON_BITS = (8, 10, 12, 14, 16)
"""The numbers of bits that cameras and scanners have; only these are chosen without being told."""


@dataclass(frozen=True)
class BitDepth:
    """Which bits of 16-bit values an image was read with.

    Attributes:
        bits: Number of bits: `2**bits - 1` is white.
        greatest: The greatest value of the image or the set.
        is_guess: Whether nothing but the values themselves tells the bits, and these leave bits unused.
    """

    bits: int
    greatest: int
    is_guess: bool

    def describe(self) -> str:
        """Say which bits were assumed and how to choose others."""
        return (
            f"16-bit values up to {self.greatest} were read as {self.bits} bits (white is {2**self.bits - 1}); "
            "give bits= (--bits) if that is wrong, such as bits=16 for the whole range"
        )


def check_bits(bits: int | None) -> None:
    """Refuse a number of bits that 16-bit images cannot have.

    Raises:
        OptionError: `bits` is neither None nor a whole number from 8 to 16.

    Example:
        >>> check_bits(12)
    """
    if bits is not None:
        check_integer("bits", bits, least=8, most=16)


def bits_needed(greatest: int) -> int:
    """Return the smallest of `COMMON_BITS` that holds a value.

    Example:
        >>> bits_needed(1023), bits_needed(1024)
        (10, 12)
    """
    return next(bits for bits in COMMON_BITS if greatest < 2**bits)


def scale_to_uint8(values: NDArray[np.uint16], bits: int, name: str) -> NDArray[np.uint8]:
    """Scale 16-bit values to 8 bits: `2**bits - 1` becomes 255, rounded.

    Args:
        values: uint16 (H, W) or (H, W, C), in any byte order. In an image of two or four channels the last one, alpha,
            may use the whole range.
        bits: Number of bits in use.
        name: What an error calls the image.

    Raises:
        ImageError: A value needs more bits.

    Example:
        >>> import numpy as np
        >>> scale_to_uint8(np.array([[0, 4095]], np.uint16), 12, "scan").tolist()
        [[0, 255]]
    """
    if values.ndim == 3 and values.shape[2] in (2, 4):
        alpha = values[..., -1:]
        alpha_bits = bits if alpha.max() < 2**bits else 16
        color = scale_to_uint8(values[..., :-1], bits, name)
        return np.concatenate((color, _table(alpha_bits)[alpha]), axis=2)
    greatest = int(values.max())
    if greatest >= 2**bits:
        needed = bits_needed(greatest)
        raise ImageError(f"{name} has values up to {greatest}, more than bits={bits} can hold; give bits={needed}")
    return _table(bits)[values]


@lru_cache
def _table(bits: int) -> NDArray[np.uint8]:
    white = 2**bits - 1
    values = np.minimum(np.arange(65536, dtype=np.uint32), white)
    return ((values * 255 + white // 2) // white).astype(np.uint8)
