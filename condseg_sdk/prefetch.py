"""Prefetching in threads: results come in order, and a bounded number of them is in memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from condseg_sdk.cores import available_cores
from condseg_sdk.errors import CondsegError

DECODERS = min(8, available_cores())
"""Number of threads that decode images."""

T = TypeVar("T")
R = TypeVar("R")


class PauseGate:
    """Pauses threads at the beginning of their next item while another thread needs all processors.

    Example:
        >>> gate = PauseGate()
        >>> gate.wait()  # returns at once: the gate is open
        >>> with gate.closed():
        ...     pass  # here `wait` blocks in other threads
    """

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def wait(self) -> None:
        """Wait until the gate is open."""
        self._open.wait()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Close the gate for the duration of a block, which only one thread at a time may enter."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


@contextmanager
def worker_threads(count: int) -> Iterator[Executor]:
    """Provide a pool of threads. At the end of the block queued work is dropped and running work is finished."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch_map(function: Callable[[T], R], items: Iterable[T], *, pool: Executor, ahead: int) -> Iterator[R]:
    """Yield the results of `map(function, items)` while threads work on up to `ahead` further items.

    Items are taken from their iterator in the caller's thread. An error of `function` is raised when its item's turn
    comes, and an error of the iterator itself after the results of all items before it. The threads end with
    `worker_threads`, even if the caller stops early.

    Args:
        function: Function that is called in the pool's threads.
        items: Any number of items, taken as they are needed.
        pool: Pool of threads.
        ahead: Number of items that are in progress or finished at a time, at least 1.

    Raises:
        CondsegError: The iteration was started in another process, which this one was forked from.

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
        if os.getpid() != owner:  # a fork does not copy the pool's threads, so it would wait forever
            raise CondsegError(
                "an iteration that was started in one process cannot continue in its fork; start it again there"
            )
        while more and len(waiting) < ahead:
            try:
                waiting.append(pool.submit(function, next(iterator)))
            except StopIteration:
                more = False
            except Exception as error:  # noqa: BLE001 - any error is raised when its turn comes
                failed: Future[R] = Future()
                failed.set_exception(error)
                waiting.append(failed)
                more = False
        if not waiting:
            return
        yield waiting.popleft().result()
