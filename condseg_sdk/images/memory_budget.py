"""Limits the memory for decoding, so that several threads do not fill it with large images."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MAX_DECODE_BYTES", "MemoryBudget"]

MAX_DECODE_BYTES = 1_300_000_000
"""Bytes that all images being decoded may need together; a file that needs more is refused."""


class MemoryBudget:
    """Bytes that threads reserve before they decode, waiting while other threads hold too many.

    Args:
        total: Number of bytes that may be reserved at a time.

    Example:
        >>> budget = MemoryBudget(100)
        >>> with budget.reserve(60):
        ...     pass  # another thread that needs more than 40 waits
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # the threads that held bytes are not in the child

    def _reset(self) -> None:
        self._mine = threading.local()
        self._changed = threading.Condition()
        self._reserved = 0

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve `size` bytes for the duration of a block, after waiting until they are free.

        A thread that already holds bytes does not wait again, since it would wait for itself.
        """
        mine, changed = self._mine, self._changed
        if getattr(mine, "holds", False):
            yield
            return
        with changed:
            changed.wait_for(lambda: self._reserved == 0 or self._reserved + size <= self.total)
            self._reserved += size
        mine.holds = True
        try:
            yield
        finally:
            mine.holds = False
            with changed:
                self._reserved -= size
                changed.notify_all()
