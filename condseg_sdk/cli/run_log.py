"""`condseg predict --log`: a file with one line of JSON for each image, written as soon as the image is done.

Lines are only appended, each in one piece. A run that is stopped or killed leaves the lines of the images that are
done; an image without a line was not segmented, or the process ended before its line was written.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from condseg_sdk._version import __version__
from condseg_sdk.checksums import sha256_of
from condseg_sdk.errors import CheckpointError, CondsegError, OutputError
from condseg_sdk.files import check_folder, make_folder
from condseg_sdk.json_files import parse_json
from condseg_sdk.origin import utc_now

if TYPE_CHECKING:
    from condseg_sdk.segmentation import Segmentation

__all__ = ["LogLine", "RunLog"]

_SOFTWARE = "condseg_sdk"


class LogLine(TypedDict):
    """A line of the log; docs/outputs.md describes the fields."""

    software: str
    date: str
    status: str
    source: str | None
    frame: int | None
    source_sha256: str | None
    outputs: list[str]
    model: str | None
    model_sha256: str | None
    threshold: float | None
    score: float | None
    min_score: float | None
    runtime: str | None
    device: str | None
    seconds: float | None
    error: str | None


class RunLog:
    """A log to which a run appends, from several threads. Use it in a `with` block, which closes it.

    Args:
        path: Path of the file. The file is created with the first line; lines of earlier runs are kept.

    Raises:
        OutputError: The file exists and is not a log of this package, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._hashed: tuple[Path, str | None] | None = None
        check_folder(path.parent)
        _check_log(path)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def done(self, source: Path, seg: Segmentation, outputs: Sequence[Path], *, seconds: float) -> None:
        """Append the line of an image, or of a frame, whose files are written.

        Args:
            source: File of the image or the video.
            seg: Its prediction.
            outputs: The files.
            seconds: Time from the beginning of reading the image until its files were written.

        Raises:
            OutputError: The line cannot be written.
        """
        origin = seg.origin.to_dict() if seg.origin is not None else None
        self._append(
            source,
            seg.frame,
            outputs=[str(path) for path in outputs],
            model=origin and origin["model"],
            model_sha256=origin and origin["model_sha256"],
            threshold=seg.threshold,
            score=round(seg.score, 6),
            min_score=seg.min_score,
            runtime=origin and origin["runtime"],
            device=origin and origin["device"],
            seconds=round(seconds, 4),
        )

    def failed(self, source: Path | None, error: CondsegError, *, frame: int | None = None) -> None:
        """Append the line of an image that cannot be read, or whose files cannot be written.

        Args:
            source: File of the image or the video; None if it is not known.
            error: The error.
            frame: Number of the frame.

        Raises:
            OutputError: The line cannot be written.
        """
        self._append(source, frame, error=str(error))

    def _append(
        self,
        source: Path | None,
        frame: int | None,
        *,
        outputs: list[str] | None = None,
        model: str | None = None,
        model_sha256: str | None = None,
        threshold: float | None = None,
        score: float | None = None,
        min_score: float | None = None,
        runtime: str | None = None,
        device: str | None = None,
        seconds: float | None = None,
        error: str | None = None,
    ) -> None:
        with self._lock:
            line: LogLine = {
                "software": f"{_SOFTWARE} {__version__}",
                "date": utc_now(),
                "status": "done" if error is None else "failed",
                "source": None if source is None else str(source),
                "frame": frame,
                "source_sha256": None if source is None else self._sha256(source),
                "outputs": outputs or [],
                "model": model,
                "model_sha256": model_sha256,
                "threshold": threshold,
                "score": score,
                "min_score": min_score,
                "runtime": runtime,
                "device": device,
                "seconds": seconds,
                "error": error,
            }
            self._write((json.dumps(line) + "\n").encode())

    def _sha256(self, source: Path) -> str | None:
        """Return the SHA-256 of a source; for the frames of a video it is computed once."""
        if self._hashed is None or self._hashed[0] != source:
            digest = None
            with suppress(CheckpointError):  # it cannot be read, which the line says otherwise
                digest = sha256_of(source) if source.is_file() else None
            self._hashed = source, digest
        return self._hashed[1]

    def _write(self, data: bytes) -> None:
        try:
            if self._descriptor is None:
                make_folder(self.path.parent)
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
                self._descriptor = os.open(self.path, flags, 0o666)
                size = os.fstat(self._descriptor).st_size
                if size:
                    os.lseek(self._descriptor, size - 1, os.SEEK_SET)
                    if os.read(self._descriptor, 1) != b"\n":  # the process was killed, or the disk full, within a line
                        data = b"\n" + data
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error.strerror}); the images' own files were written: free space, or "
                "choose another --log",
                path=self.path,
            ) from error


def _is_line(text: bytes, path: Path) -> bool:
    """Return whether text is a line of a log of this package."""
    try:
        line = parse_json(text, name=path, error=OutputError, remedy="")
    except OutputError:
        return False
    return isinstance(line, dict) and str(line.get("software")).startswith(f"{_SOFTWARE} ")


def _check_log(path: Path) -> None:
    """Refuse a file that another program wrote, before the work."""
    if not os.path.lexists(path):
        return
    try:
        if path.is_file():
            with path.open("rb") as file:
                first = file.readline(1 << 20)
            if not first or _is_line(first, path):
                with path.open("ab"):
                    return
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --log", path=path) from error
    raise OutputError(
        f"{path} is not a log that condseg wrote, so nothing is appended; choose another --log", path=path
    )
