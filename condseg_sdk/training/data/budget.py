"""A limit on what several threads hold in memory at once, counted in pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PixelBudget"]


class PixelBudget:
    """Lets threads go on while what they decode fits into memory together.

    Small images are decoded in parallel; a huge one waits until it is alone.

    Args:
        pixels: Number of pixels that may be in work at once. A larger image counts as that many.

    Example:
        >>> budget = PixelBudget(1_000_000)
        >>> with budget.reserve(640 * 480):
        ...     pass
    """

    def __init__(self, pixels: int) -> None:
        self._total = pixels
        self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until this number of pixels is free, and keep it for the length of a block."""
        needed = min(pixels, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= needed)
            self._free -= needed
        try:
            yield
        finally:
            with self._changed:
                self._free += needed
                self._changed.notify_all()
