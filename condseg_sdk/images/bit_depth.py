"""Finds how many bits of a 16-bit image are in use, and scales 16-bit values to uint8.

Cameras, scanners and endoscopes with 10, 12 or 14 bits store their values in 16 bits. Read as 16 bits, such images
would be almost black.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import ImageError
from condseg_sdk.options import check_integer

__all__ = [
    "COMMON_BITS",
    "BitDepth",
    "bits_in_use",
    "bits_needed",
    "check_bits",
    "common_depth",
    "scale_to_uint8",
    "share_above",
]

COMMON_BITS = (8, 10, 12, 14, 16)
"""Numbers of bits that cameras and scanners have; only these are chosen by default."""

FEW = 0.01
"""Share of an image's pixels that may be brighter than the bits in use, such as text or a mark drawn at 65535."""

DARK = 0.1
"""Largest share of pixels above 12 bits for which a 16-bit image may be a 12-bit one with a large mark: a warning."""


@dataclass(frozen=True)
class BitDepth:
    """The bits with which the 16-bit values of an image or a set were read.

    Attributes:
        bits: Number of bits: `2**bits - 1` is white.
        greatest: Largest value in the image or the set.
        is_guess: Whether the bits were inferred from the values alone, and all or most of them leave bits unused.
        clipped: Share of pixels that are brighter than white, in the image with the largest share.
        needed: Number of bits that all pixels except for a few need.
    """

    bits: int
    greatest: int
    is_guess: bool
    clipped: float = 0.0
    needed: int = 16

    def describe(self) -> str:
        """Describe which bits were assumed and how to choose others, or how many pixels were clipped."""
        white = 2**self.bits - 1
        above = f"{self.clipped:.2%} of the pixels are above {white}, up to {self.greatest}, and were read as white"
        if not self.is_guess:
            return f"{above}; pass a larger bits= (--bits) if they are not text or a mark in the image"
        read = f"16-bit values up to {self.greatest} were read as {self.bits} bits (white is {white})"
        if self.bits == 16:
            dark = "most pixels are below 4096"
            remedy = "pass bits= (--bits), such as bits=12, and paint out marks of more than 1 % of the pixels"
            return f"{read}, and {dark}; if that is almost black, {remedy}"
        remedy = "pass bits= (--bits) if that is wrong, such as bits=16 for the full range"
        return f"{read}; {above}; {remedy}" if self.clipped else f"{read}; {remedy}"


def check_bits(bits: int | None) -> None:
    """Check a number of bits in use for 16-bit images.

    Raises:
        OptionError: `bits` is neither None nor an integer from 8 to 16.

    Example:
        >>> check_bits(12)
    """
    if bits is not None:
        check_integer("bits", bits, least=8, most=16)


def bits_needed(greatest: int) -> int:
    """Return the smallest of `COMMON_BITS` that can represent a value.

    Example:
        >>> bits_needed(1023), bits_needed(1024)
        (10, 12)
    """
    return next(bits for bits in COMMON_BITS if greatest < 2**bits)


def share_above(values: NDArray[np.uint16], bits: int) -> float:
    """Return the share of an image's pixels with a value, in any channel, that needs more bits.

    Example:
        >>> share_above(np.array([[0, 100, 4095, 65535]], np.uint16), 12)
        0.25
    """
    above = values >= 2**bits
    return float((above.any(axis=2) if above.ndim == 3 else above).mean())


def bits_in_use(values: NDArray[np.uint16]) -> int:
    """Return the smallest of `COMMON_BITS` that holds an image's values except for a few pixels, such as small text.

    A few means one in a thousand, or 16 in a small image, and never more than `FEW`.

    Example:
        >>> scan = np.full((64, 64), 4000, np.uint16)
        >>> scan[:3, :3] = 65535
        >>> bits_in_use(scan)
        12
    """
    pixels = values.shape[0] * values.shape[1]
    few = min(max(0.001, 16 / pixels), FEW)
    return next(bits for bits in COMMON_BITS if bits == 16 or share_above(values, bits) <= few)


def common_depth(depths: Iterable[BitDepth]) -> BitDepth | None:
    """Return the bits that hold the values of all images of a set; None for an empty set.

    All 16 bits are a guess only if no image of the set needs them.
    """
    known = list(depths)
    if not known:
        return None
    bits = max(depth.bits for depth in known)
    guesses = [depth.is_guess for depth in known if depth.greatest > 0]
    clipped = max(depth.clipped for depth in known if depth.bits == bits)
    is_guess = any(guesses) if bits < 16 else bool(guesses) and all(guesses)
    return BitDepth(
        bits, max(depth.greatest for depth in known), is_guess, clipped, max(depth.needed for depth in known)
    )


def scale_to_uint8(values: NDArray[np.uint16], bits: int, name: str) -> NDArray[np.uint8]:
    """Scale 16-bit values to 8 bits: `2**bits - 1` becomes 255, as do larger values in a few pixels.

    Args:
        values: Image, uint16 (H, W) or (H, W, C), in any byte order. If it has two or four channels, the last one,
            alpha, may use the full range.
        bits: Number of bits in use.
        name: Name of the image for messages.

    Returns:
        Image, uint8, of the same shape.

    Raises:
        ImageError: More than `FEW` of the pixels need more bits.

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
    if greatest >= 2**bits and (share := share_above(values, bits)) > FEW:
        needed = bits_in_use(values)
        held = f"values up to {greatest} in {share:.1%} of its pixels, more than bits={bits} can hold"
        remedy = f"pass bits={needed}, or an array with these pixels set to {2**bits - 1}"
        raise ImageError(f"{name} has {held}; {remedy}")
    return _table(bits)[values]


@lru_cache
def _table(bits: int) -> NDArray[np.uint8]:
    white = 2**bits - 1
    values = np.minimum(np.arange(65536, dtype=np.uint32), white)
    return ((values * 255 + white // 2) // white).astype(np.uint8)
