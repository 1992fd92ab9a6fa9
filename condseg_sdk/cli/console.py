"""Standard output and error of the `condseg` process: whatever is printed there, no print can fail a run.

A stream may be closed (`>&-`, a service), a pipe whose reader is gone (`| head`), a full disk, or of an encoding that
lacks a file's name (a Windows console, LANG=C). Results are on the disk by then, and must stay the outcome.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

__all__ = ["prepare_console", "write_error"]


class _Unfailing(io.RawIOBase):
    """A raw stream that drops what cannot be written and remembers why."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        place = 0
        while self.error is None and place < len(view):
            try:
                written = self._raw.write(view[place:])
                if written is None:  # a pipe that does not block, and is full
                    select.select([], [self._raw], [])
                place += written or 0
            except OSError as error:
                self.error = error
        return len(view)


def prepare_console() -> None:
    """Make the process's streams unfailing. To be called before anything is printed or opened."""
    _open_closed_descriptors()
    sys.stdout = _unfailing(sys.stdout)
    sys.stderr = _unfailing(sys.stderr)


def write_error() -> str | None:
    """Why standard output is incomplete, where its reader has not simply gone away."""
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if isinstance(raw, _Unfailing):
        sys.stdout.flush()
        if raw.error is not None and raw.error.errno not in (errno.EPIPE, errno.EBADF, errno.EINVAL):
            return raw.error.strerror
    return None


def _open_closed_descriptors() -> None:
    """The next file that is opened would otherwise get the number of a closed stream, and its messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def _unfailing(stream: TextIO | None) -> TextIO:
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open for the length of the process
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # of a notebook or a test, which has no descriptor to fail
    encoding, options = stream.encoding, (stream.line_buffering, stream.write_through)
    buffer: Any = stream.detach()
    if isinstance(buffer, io.BufferedWriter):
        buffer = io.BufferedWriter(_Unfailing(buffer.detach()))
    else:  # python -u, PYTHONUNBUFFERED
        buffer = _Unfailing(buffer)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", None, *options)
