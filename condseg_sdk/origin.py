"""What made a prediction: the model with its SHA-256, the version of this package, runtime, device and time.

Every output file contains it. `provenance.py` seals the files.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NotRequired, TypedDict

from condseg_sdk._version import __version__
from condseg_sdk.checksums import sha256_of
from condseg_sdk.errors import CheckpointError, OptionError

__all__ = ["JobDict", "ModelFile", "Origin", "OriginDict", "model_label", "utc_now"]

logger = logging.getLogger("condseg_sdk")


class ModelFile:
    """The file with the weights of a model. Its SHA-256 is computed when an output first needs it.

    Args:
        path: Path of the file, which has just been opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._status = _status(path)

    @cached_property
    def sha256(self) -> str | None:
        """SHA-256 of the file, 64 hexadecimal digits; None if the file has changed since it was opened."""
        try:
            digest = sha256_of(self.path)
        except CheckpointError:
            digest = None
        if digest is None or self._status is None or _status(self.path) != self._status:
            logger.warning("%s has changed since it was opened: outputs do not contain its SHA-256", self.path)
            return None
        return digest

    def __getstate__(self) -> dict[str, object]:
        _ = self.sha256  # the file may not be there where the copy is opened
        return self.__dict__


class JobDict(TypedDict):
    """What a worker of a cluster was asked to do, by which the next call recognizes finished images.

    The SHA-256 of the image's file, and the arguments of `Predictor.stream` that change a prediction.
    """

    source_sha256: str
    tta: bool
    tile: int | None
    bits: int | None


class OriginDict(TypedDict):
    """The origin of a prediction as plain JSON types; see `Origin`."""

    model: str
    model_sha256: str | None
    version: str
    runtime: str
    device: str
    date: str
    job: NotRequired[JobDict]


@dataclass(frozen=True)
class Origin:
    """What made a prediction.

    Attributes:
        model: Name of the model; for a path, only its last two parts.
        weights: File with the weights.
        runtime: What executed the network, such as "torch" or "CPUExecutionProvider".
        device: Device that it ran on, such as "cpu" or "cuda:0".
        date: Time of the prediction in UTC, such as "2026-11-28T09:30:12.345+00:00"; the environment variable
            SOURCE_DATE_EPOCH replaces it, so that the same prediction gives the same files.
        version: Version of this package.
        job: Source and settings of a prediction on a cluster (`condseg_sdk.distributed`); None elsewhere.
    """

    model: str
    weights: ModelFile
    runtime: str
    device: str
    date: str
    version: str = __version__
    job: JobDict | None = None

    def to_dict(self) -> OriginDict:
        """Convert the origin to plain JSON types, with the SHA-256 of the weights as `model_sha256`."""
        stated: OriginDict = {
            "model": self.model,
            "model_sha256": self.weights.sha256,
            "version": self.version,
            "runtime": self.runtime,
            "device": self.device,
            "date": self.date,
        }
        if self.job is not None:
            stated["job"] = self.job
        return stated


def model_label(model: str | os.PathLike[str]) -> str:
    """Return the name of a model for outputs: for a path only the last two parts, since the others may be private.

    Example:
        >>> model_label("condseg-lite-polyp"), model_label(Path("/home/jane/runs/mine/checkpoint"))
        ('condseg-lite-polyp', 'mine/checkpoint')
    """
    return "/".join(model.parts[-2:]) if isinstance(model, Path) else os.fspath(model)


def utc_now() -> str:
    """Return the time in UTC, to the millisecond; the time in SOURCE_DATE_EPOCH if it is set.

    Raises:
        OptionError: SOURCE_DATE_EPOCH is not a number of seconds since 1970.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        time = datetime.fromtimestamp(int(fixed), UTC) if fixed else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise OptionError(f"SOURCE_DATE_EPOCH={fixed!r} must be a number of seconds since 1970; unset it") from error
    return time.isoformat(timespec="milliseconds")


def _status(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
