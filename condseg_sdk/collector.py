"""Python's garbage collector, which searches all objects again and again while a library makes objects that stay."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import threading
from collections.abc import Iterator

__all__ = ["collect_rarely", "collector_paused"]


class _Pauses:
    """Counts the pauses of all threads: the first stops the collector, and the end of the last starts it again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.was_on = False

    def begin(self) -> None:
        with self.lock:
            if self.count == 0:
                self.was_on = gc.isenabled()
                gc.disable()
            self.count += 1

    def end(self) -> None:
        with self.lock:
            self.count = max(0, self.count - 1)
            if self.count == 0 and self.was_on:
                gc.enable()

    def forget(self) -> None:
        """End all pauses in a forked child, which has none of the threads that would end theirs."""
        self.lock = threading.Lock()
        if self.count and self.was_on:
            gc.enable()
        self.count = 0


_pauses = _Pauses()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pauses.forget)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector, for instance while PyTorch is imported and traces a network.

    Example:
        >>> import gc
        >>> with collector_paused():
        ...     gc.isenabled()
        False
    """
    _pauses.begin()
    try:
        yield
    finally:
        _pauses.end()


def collect_rarely() -> None:
    """Let the garbage collector search after 50,000 new objects instead of some hundreds, and not at the end.

    Imports make hundreds of thousands of objects that stay, and an export many more: searching them takes longer than
    what there is to free. Only for processes that are not someone else's.
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)
