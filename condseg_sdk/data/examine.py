"""Reads the files of a pair once, and keeps what the checks of a dataset need."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from condseg_sdk.data.budget import PAIRS_IN_WORK, pair_bytes
from condseg_sdk.data.duplicates import Fingerprint, fingerprint
from condseg_sdk.data.masks import read_mask
from condseg_sdk.data.pairs import Pair, Split
from condseg_sdk.data.plausibility import MaskShape, describe_shape
from condseg_sdk.data.regions import SizeMismatchError
from condseg_sdk.data.sizes import Size
from condseg_sdk.errors import CondsegError, ImageError
from condseg_sdk.images.bit_depth import BitDepth
from condseg_sdk.images.files import is_deep_color, orientation_of
from condseg_sdk.images.load import open_image, read_image

__all__ = ["PairStats", "Rejected", "examine", "image_fingerprint"]


@dataclass(frozen=True)
class Rejected:
    """A pair that cannot be checked further.

    Attributes:
        reason: What is wrong, with the name of the file.
        is_mismatch: Whether the files can be read but do not fit together.
    """

    reason: str
    is_mismatch: bool = False


@dataclass(frozen=True)
class PairStats:
    """What the checks need to know about the files of a pair.

    Attributes:
        pair: The pair.
        split: Its split.
        size: (height, width) of the upright image.
        orientation: EXIF orientation of the image, 1 for upright as stored.
        digest: Digest of the bytes of the image file.
        content: Digest of these bytes and the pixels of the mask.
        depth: Bits in use in an image with 16-bit values; None for others.
        fingerprint: Fingerprint of the image, by which near-duplicates are found.
        mask_size: (height, width) of the upright mask.
        mask_turned: Whether the mask file has an EXIF orientation of its own.
        shape: Shape of the mask.
        kind: How the values of the mask were read.
        remark: Reason why somebody should check the mask, or None.
    """

    pair: Pair
    split: Split
    size: Size
    orientation: int
    digest: bytes
    content: bytes
    depth: BitDepth | None
    fingerprint: Fingerprint
    mask_size: Size
    mask_turned: bool
    shape: MaskShape
    kind: str
    remark: str | None


def examine(job: tuple[Pair, Split], bits: int | None) -> PairStats | Rejected:
    """Read the files of a pair once.

    Args:
        job: The pair and its split.
        bits: Number of bits in use if the image has 16-bit values; None to find it from the image.
    """
    pair, split = job
    try:
        with PAIRS_IN_WORK.reserve(pair_bytes(pair)):
            return _stats(pair, split, bits)
    except SizeMismatchError as error:
        return Rejected(str(error), is_mismatch=True)
    except CondsegError as error:
        return Rejected(str(error))


def image_fingerprint(path: Path, *, bits: int | None = None) -> Fingerprint:
    """Compute the fingerprint of an image file.

    Args:
        path: Path of the image.
        bits: Number of bits in use if the image has 16-bit values; None to find it from the image.

    Raises:
        ImageError: The image cannot be read.
    """
    return fingerprint(_look_at(path, bits)[0])


def _stats(pair: Pair, split: Split, bits: int | None) -> PairStats:
    gray, size, orientation, depth = _look_at(pair.image, bits)
    digest, print_of_image = _digest(pair.image), fingerprint(gray)
    del gray  # a large image and its mask must not be in memory together
    reading = read_mask(pair.mask)
    mask = reading.mask
    return PairStats(
        pair=pair,
        split=split,
        size=size,
        orientation=orientation,
        digest=digest,
        content=hashlib.blake2b(digest + np.packbits(mask).tobytes(), digest_size=16).digest(),
        depth=depth,
        fingerprint=print_of_image,
        mask_size=(mask.shape[0], mask.shape[1]),
        mask_turned=reading.turned,
        shape=describe_shape(mask),
        kind=reading.kind,
        remark=reading.remark,
    )


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); copy it again") from error


def _look_at(path: Path, bits: int | None) -> tuple[NDArray[np.uint8], Size, int, BitDepth | None]:
    """Return an image's gray values, possibly at a smaller size, its upright size, EXIF orientation and bits in use."""
    with open_image(path) as image:
        orientation = orientation_of(image)
        size = image.size if orientation >= 5 else image.size[::-1]
        if image.mode[0] in "IF" or is_deep_color(image):  # 16-bit and float, which Pillow would clip
            with read_image(path, bits=bits) as loaded:
                return loaded.pixels.max(axis=2), size, orientation, loaded.depth
        image.draft("L", (256, 256))  # a JPEG is read to its end, but at down to an eighth of its size
        # `exif_transpose` copies in any case.
        upright = ImageOps.exif_transpose(image) if orientation != 1 else image
        # Converted directly to gray, palettes with transparency would make Pillow log a warning.
        plain = upright.convert("RGBA") if upright.has_transparency_data else upright
        return np.asarray(plain.convert("L")), size, orientation, None
