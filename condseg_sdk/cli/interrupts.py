"""What Ctrl-C (SIGINT) and SIGTERM do to the `condseg` process: at most a line or a summary, and whole files.

Before the work and while libraries load, the process ends at once. While it works there are two ways: `raising` lets
the signal arrive as a KeyboardInterrupt, which cleans up on its way out, and `deferred` lets the work in hand be
finished. A second signal always ends the process at once; files that were being written are removed.
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
    """Whether the work is to be ended after what is in hand."""

    requested = False


_mode: Literal["end", "raise", "defer"] = "end"
_received: int | None = None
_owner = os.getpid()
_stop = Stop()


def install() -> None:
    """Take over SIGINT and SIGTERM, but for those that the caller of this process ignores (`nohup`, `trap '' INT`)."""
    global _owner
    _owner = os.getpid()
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _handle)


def exit_code() -> int:
    """128 and the signal's number, as shells have it: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (_received or signal.SIGINT)


@contextmanager
def raising(left: str = "") -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal.

    Args:
        left: What the user is told of the state in which the work was left.
    """
    try:
        with _in_mode("raise"):
            yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(left) from error


@contextmanager
def deferred() -> Iterator[Stop]:
    """Say at the first signal that it has come, and set `requested`."""
    with _in_mode("defer"):
        yield _stop


@contextmanager
def _in_mode(mode: Literal["raise", "defer"]) -> Iterator[None]:
    global _mode
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def _handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal.signal calls
    global _received
    if os.getpid() != _owner:  # a forked child, such as a process that reads training data
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        os._exit(128 + number)
    if _received is not None or _mode == "end":
        if (files := sys.modules.get("condseg_sdk.files")) is not None:
            files.remove_parts()
        _say(STOPPED)
        os._exit(128 + number)
    _received = number
    if _mode == "raise":
        raise KeyboardInterrupt
    _stop.requested = True
    _say("condseg: stopping after the images in hand; press Ctrl-C again to stop at once")


def _say(text: str) -> None:
    """Not by `print`, whose buffer the interrupted code may be holding."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
