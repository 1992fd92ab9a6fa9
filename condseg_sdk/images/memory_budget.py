"""Large images are decoded one after the other, so that several threads together do not fill the memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MAX_DECODE_BYTES", "MemoryBudget"]

MAX_DECODE_BYTES = 1_300_000_000
"""Bytes that images in decoding may take together; a file that needs more alone is refused."""


class MemoryBudget:
    """Lets threads reserve bytes, and wait while others hold too many of them.

    Args:
        total: Number of bytes that may be reserved at a time.

    Example:
        >>> budget = MemoryBudget(100)
        >>> with budget.reserve(60):
        ...     pass  # another thread that wants more than 40 waits here
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
        """Hold `size` bytes for the length of a block, after waiting for others to give theirs back.

        A thread that holds bytes already does not wait again, since it would wait for itself.
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
