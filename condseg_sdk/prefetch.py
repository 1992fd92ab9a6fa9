"""Working ahead in threads: results in order, a bounded number at a time."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from condseg_sdk.errors import OptionError

DECODERS = min(8, os.cpu_count() or 1)
"""Number of threads that decode images."""

T = TypeVar("T")
R = TypeVar("R")


class PauseGate:
    """Lets work begin in some threads only while no other needs all processors.

    Example:
        >>> gate = PauseGate()
        >>> gate.wait()  # open
        >>> with gate.closed():
        ...     pass  # who calls wait() now, waits
    """

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def wait(self) -> None:
        """Return when the gate is open."""
        self._open.wait()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Keep it closed for the length of a block, which only one thread at a time may be in."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


@contextmanager
def worker_threads(count: int) -> Iterator[Executor]:
    """A pool of threads whose waiting work is dropped at the end of the block; what runs already is waited for."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch_map(function: Callable[[T], R], items: Iterable[T], *, pool: Executor, ahead: int) -> Iterator[R]:
    """`map(function, items)`, with up to `ahead` items in work or waiting while the caller uses a result.

    Items are taken from their iterator in the caller's thread. An error of `function` is raised when its item's turn
    comes, and so is an error of the iterator itself: after the results of all items before it. Threads end with
    `worker_threads`, also where the caller stops early.

    Args:
        function: Called in the pool's threads.
        items: Any number, taken as they are needed.
        pool: Of threads.
        ahead: How many, at least 1. So many results are in memory at most.

    Raises:
        OptionError: This is a forked copy of the process in which it began.

    Example:
        >>> with worker_threads(2) as pool:
        ...     list(prefetch_map(abs, (-1, -2, 3), pool=pool, ahead=2))
        [1, 2, 3]
    """
    iterator = iter(items)
    owner = os.getpid()
    waiting: deque[Future[R]] = deque()
    more = True
    while True:
        if os.getpid() != owner:  # the threads at work are not in a copy of the process: it would wait forever
            raise OptionError("results begun in one process cannot be continued in its fork; start anew there")
        while more and len(waiting) < ahead:
            try:
                waiting.append(pool.submit(function, next(iterator)))
            except StopIteration:
                more = False
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in its turn
                failed: Future[R] = Future()
                failed.set_exception(error)
                waiting.append(failed)
                more = False
        if not waiting:
            return
        yield waiting.popleft().result()
