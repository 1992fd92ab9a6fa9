"""Computation in a forked process, where PyTorch would hang.

A fork copies one thread and none of the OpenMP threads that this thread has started for PyTorch's work on the CPU. In
the forked child that thread still waits for them. A new thread starts OpenMP threads of its own. The package therefore
computes in a new thread what the copied thread asks for: with as many OpenMP threads as in the parent, and with the
same results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import wraps
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from condseg_sdk.errors import DeviceError

__all__ = ["REMEDY", "check_process", "fork_safe"]

P = ParamSpec("P")
R = TypeVar("R")

# A process does not share its GPU with its forks, nor the threads of a plug-in.
REMEDY = "load the predictor in each process and not before the fork, or start processes with 'spawn' (docs/serving.md)"


def fork_safe(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that computes with PyTorch usable in a forked child.

    Everywhere else, including the other threads of a child, the function is called directly.

    Example:
        >>> @fork_safe
        ... def total(values):
        ...     return sum(values)
        >>> total([1, 2])
        3
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if threading.get_ident() != _survivor:
            return function(*args, **kwargs)
        result: R = _substitute().run(lambda: function(*args, **kwargs))
        return result

    return call


def check_process(owner: int, device: str) -> None:
    """Refuse to use a GPU or plug-in in a process other than the one that opened it, which is not supported.

    Args:
        owner: Process ID of the process that opened the device.
        device: Name of the device; "cpu" is always allowed.

    Raises:
        DeviceError: This is a forked child of that process.
    """
    if device != "cpu" and os.getpid() != owner:
        raise DeviceError(
            f"device={device!r} was opened before this process was forked from its parent: {REMEDY}", option="device"
        )


class _Substitute:
    """A thread that computes for another one. It is a daemon: the process can end while it waits."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._serve, name="condseg_sdk after fork", daemon=True).start()

    def run(self, call: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future.result()

    def _serve(self) -> None:
        while True:
            future, call = self._calls.get()
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that called
                future.set_exception(error)
            del future, call  # keeps no image alive while it waits for the next call


_survivor: int | None = None  # in a forked child: the thread that was copied
_thread: _Substitute | None = None


def _substitute() -> _Substitute:
    global _thread
    if _thread is None:
        _thread = _Substitute()
    return _thread


def _forked() -> None:
    global _survivor, _thread
    _survivor, _thread = threading.get_ident(), None


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)
