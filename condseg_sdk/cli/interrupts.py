"""How Ctrl-C (SIGINT) and SIGTERM end the `condseg` process: with a line or a summary, and without partial files.

Before the work, and while libraries load, the process ends at once. During the work there are two ways: `raising` turns
the signal into a KeyboardInterrupt, which cleans up, and `deferred` lets the current images be finished. A second
signal always ends the process at once; files that are being written are removed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Literal

__all__ = ["STOPPED", "Stop", "deferred", "exit_code", "install", "raising"]

STOPPED = "condseg: stopped"


class Stop:
    """Tells the work to end after the current images."""

    requested = False


_mode: Literal["end", "raise", "defer"] = "end"
_received: int | None = None
_owner = os.getpid()
_stop = Stop()


def install() -> None:
    """Handle SIGINT and SIGTERM, except those that the caller of the process ignores (`nohup`, `trap '' INT`)."""
    global _owner
    _owner = os.getpid()
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _handle)


def exit_code() -> int:
    """Return 128 plus the number of the signal, as shells do: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (_received or signal.SIGINT)


@contextmanager
def raising(left: str = "") -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal.

    Args:
        left: Message about the state that the work is left in.
    """
    try:
        with _in_mode("raise"):
            yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(left) from error


@contextmanager
def deferred() -> Iterator[Stop]:
    """At the first signal print a line and set `requested`."""
    with _in_mode("defer"):
        yield _stop


@contextmanager
def _in_mode(mode: Literal["raise", "defer"]) -> Iterator[None]:
    """Set the mode for the duration of a block."""
    global _mode
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def _handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal.signal calls
    """Handle a signal according to the current mode."""
    global _received
    if os.getpid() != _owner:  # a forked child, such as a data loading worker
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        os._exit(128 + number)
    if _received is not None or _mode == "end":
        if (files := sys.modules.get("condseg_sdk.files")) is not None:
            files.remove_temporary_files()
        _say(STOPPED)
        os._exit(128 + number)
    _received = number
    if _mode == "raise":
        raise KeyboardInterrupt
    _stop.requested = True
    _say("condseg: stopping after the current images; press Ctrl-C again to stop at once")


def _say(text: str) -> None:
    """Write a line to stderr without `print`, whose buffer the interrupted code may be using."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
