"""Standard output and error of the `condseg` process, set up so that printing can never make a run fail.

A stream may be closed (`>&-`, a service), be a pipe that nobody reads any longer (`| head`) or a full disk, or have an
encoding without the letters of a file name (a Windows console, LANG=C). The results are on the disk by then.
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
    """A raw stream that drops what cannot be written and keeps the reason."""

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
                if written is None:  # a non-blocking pipe that is full
                    select.select([], [self._raw], [])
                place += written or 0
            except OSError as error:
                self.error = error
        return len(view)


def prepare_console() -> None:
    """Make the streams of the process safe to print to. Call it before anything is printed or opened."""
    _open_closed_descriptors()
    sys.stdout = _unfailing(sys.stdout)
    sys.stderr = _unfailing(sys.stderr)


def write_error() -> str | None:
    """Return why standard output is incomplete; None if it is complete, or only its reader closed the pipe."""
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if isinstance(raw, _Unfailing):
        sys.stdout.flush()
        if raw.error is not None and raw.error.errno not in (errno.EPIPE, errno.EBADF, errno.EINVAL):
            return raw.error.strerror
    return None


def _open_closed_descriptors() -> None:
    """Open closed descriptors: otherwise the next opened file would get the number of a stream, and its messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def _unfailing(stream: TextIO | None) -> TextIO:
    """Return a stream like the given one that drops what cannot be written."""
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open for the length of the process
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # in a notebook or a test, where it has no descriptor
    encoding, options = stream.encoding, (stream.line_buffering, stream.write_through)
    buffer: Any = stream.detach()
    if isinstance(buffer, io.BufferedWriter):
        buffer = io.BufferedWriter(_Unfailing(buffer.detach()))
    else:  # python -u, PYTHONUNBUFFERED
        buffer = _Unfailing(buffer)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", None, *options)
