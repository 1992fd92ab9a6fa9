"""Python's garbage collector, which searches all objects again and again while a library makes objects that stay."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator

__all__ = ["collect_rarely", "collector_paused"]


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector, for instance while PyTorch is imported and traces a network.

    Example:
        >>> import gc
        >>> with collector_paused():
        ...     gc.isenabled()
        False
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def collect_rarely() -> None:
    """Let the garbage collector search after 50,000 new objects instead of some hundreds, and not at the end.

    Imports make hundreds of thousands of objects that stay: without this, a command that predicts one image takes a
    tenth longer, and the end of one that has exported a network more than a second. Only for processes that are not
    someone else's.
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)
