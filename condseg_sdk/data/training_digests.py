"""Digests of training images: by them an image is recognized that a checkpoint was trained on.

A digest has 128 bits. The 32x32 thumbnail of an image is transformed by a DCT, whose low frequencies are weighted by
their frequency, so that no few of them decide; 128 sums of them with random signs follow, and each bit is the sign of a
sum. Copies that were saved again, rescaled or brightened keep nearly all bits; those of other images differ by chance.
The random signs follow from a salt, a different one for each set of images, so that the digests of two checkpoints
cannot be compared with each other. docs/evaluation.md says how well it works and what a digest reveals.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.data.duplicates import Fingerprint
from condseg_sdk.errors import CheckpointError
from condseg_sdk.json_files import read_json_object, write_json
from condseg_sdk.opencv import cv2

__all__ = ["TrainingDigests"]

FORMAT_VERSION = 1
BITS = 128
SIDE = 32  # of the thumbnail
FREQUENCIES = 15  # in each direction
# Number of differing bits. Unrelated images differ in about 64, the nearest of thousands in 12 or more.
MAX_DISTANCE = 8
BLOCK = 4096  # digests compared at once, to limit memory


@dataclass(frozen=True, eq=False)
class TrainingDigests:
    """Digests of the images that a checkpoint was trained on.

    Args:
        salt: Bytes that determine how a digest is computed.
        values: Digests, uint8 (N, 16).

    Example:
        >>> from condseg_sdk.data.duplicates import fingerprint
        >>> rng = np.random.default_rng(0)
        >>> one, other = (fingerprint(rng.integers(0, 256, (40, 60), np.uint8)) for _ in range(2))
        >>> digests = TrainingDigests.of([one], salt=b"any")
        >>> digests.matches([one, other])
        [True, False]
    """

    salt: bytes
    values: NDArray[np.uint8] = field(repr=False)

    @classmethod
    def of(cls, images: Sequence[Fingerprint], *, salt: bytes) -> TrainingDigests:
        """Compute the digests of images; those of a single color, which resemble each other, are left out."""
        return cls(salt, _digests([image for image in images if not image.is_blank], salt))

    def __len__(self) -> int:
        return len(self.values)

    def extended(self, images: Sequence[Fingerprint]) -> TrainingDigests:
        """Return these digests and those of more images, each once."""
        both = np.concatenate([self.values, TrainingDigests.of(images, salt=self.salt).values])
        return TrainingDigests(self.salt, np.unique(both, axis=0))

    def matches(self, images: Sequence[Fingerprint]) -> list[bool]:
        """Return for each image whether it is one of these, or a copy that was saved again, rescaled or brightened."""
        if not images or not len(self):
            return [False] * len(images)
        bits = np.unpackbits(_digests(images, self.salt), axis=1).astype(np.float32) * 2 - 1
        nearest = np.full(len(images), BITS, np.float32)
        for start in range(0, len(self), BLOCK):
            known = np.unpackbits(self.values[start : start + BLOCK], axis=1).astype(np.float32) * 2 - 1
            nearest = np.minimum(nearest, ((BITS - bits @ known.T) / 2).min(axis=1))
        return [
            bool(distance <= MAX_DISTANCE) and not image.is_blank
            for distance, image in zip(nearest, images, strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write the digests as JSON, about 22 bytes for each image.

        Raises:
            OutputError: The file cannot be written.
        """
        text = base64.b64encode(self.values.tobytes()).decode("ascii")
        write_json(
            path, {"format_version": FORMAT_VERSION, "salt": self.salt.hex(), "images": len(self), "digests": text}
        )

    @classmethod
    def load(cls, path: Path) -> TrainingDigests:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is damaged, or of a newer format.
        """
        remedy = "restore it with its checkpoint, or delete it, and no training image is recognized"
        values = read_json_object(path, error=CheckpointError, remedy=remedy)
        missing = [name for name in ("format_version", "salt", "images", "digests") if name not in values]
        try:
            if missing:
                raise ValueError(f"{', '.join(missing)} missing")
            if values["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {values['format_version']!r} is not {FORMAT_VERSION}")
            digests = np.frombuffer(base64.b64decode(values["digests"], validate=True), np.uint8)
            return cls(bytes.fromhex(values["salt"]), digests.reshape(values["images"], BITS // 8))
        except (TypeError, ValueError, binascii.Error) as error:
            raise CheckpointError(f"{path} has no digests of images ({error}): {remedy}", path=path) from error


def _digests(images: Sequence[Fingerprint], salt: bytes) -> NDArray[np.uint8]:
    """Compute the digest of each image, uint8 (N, 16)."""
    if not images:
        return np.zeros((0, BITS // 8), np.uint8)
    low = np.stack([_low_frequencies(image) for image in images])
    return np.packbits(low @ _signs(salt).T > 0, axis=1)


def _low_frequencies(image: Fingerprint) -> NDArray[np.float32]:
    """Return the weighted coefficients of the low frequencies without the mean, float32 (224,)."""
    coefficients = cv2.dct(image.thumbnail.reshape(SIDE, SIDE).astype(np.float32))[:FREQUENCIES, :FREQUENCIES]
    steps = np.arange(FREQUENCIES, dtype=np.float32)
    # Natural images have amplitudes of about 1 / frequency.
    weighted = np.asarray(coefficients, np.float32) * np.hypot(steps[:, None], steps)
    return weighted.ravel()[1:]


def _signs(salt: bytes) -> NDArray[np.float32]:
    """Return the random signs, +1 or -1, float32 (128, 224); unlike NumPy's, SHAKE-256 never changes."""
    count = BITS * (FREQUENCIES**2 - 1)
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(salt).digest(count // 8), np.uint8))
    return bits.reshape(BITS, -1).astype(np.float32) * 2 - 1
