"""Runs each subject in its own process, so that its memory and load time can be measured.

A waiting worker sleeps in `recv`. Its threads stop spinning within `SETTLE` seconds after a run, and the caller waits
for that before the turn of the next worker.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.benchmarking.subjects import Subject
from condseg_sdk.errors import CondsegError
from condseg_sdk.runtimes.base import uses_all_cores

SETTLE = 0.05
KEPT = 64  # maps for the comparison


class SubjectError(CondsegError):
    """A subject cannot be built, or failed."""


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Let a process that is started in this block ignore SIGINT."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Worker:
    """A subject in its own process: a context manager that ends the process on exit."""

    def __init__(self, subject: Subject, images: NDArray[np.float32], *, batch: int, threads: int | None) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the memory of its parent
        self._pipe, end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(end, subject.build, images, batch, threads, subject.device), daemon=True
        )
        with _ignoring_interrupts():  # Ctrl-C reaches both processes; this one ends the worker
            self._process.start()
        end.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()  # recv in the worker raises EOFError, and the worker ends
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, *request: Any) -> Any:
        try:
            self._pipe.send(request)
            kind, reply = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(timeout=5)
            raise SubjectError(f"its process ended with {self._process.exitcode}, perhaps out of memory") from error
        if kind == "error":
            raise SubjectError(reply)
        return reply

    def wait(self) -> None:
        """Wait until the process has imported what it needs.

        Raises:
            SubjectError: It ended.
        """
        self._ask("ready")

    def load(self) -> tuple[float, float]:
        """Build the subject and call it once; return the seconds for loading and for the call, with compilation.

        Raises:
            SubjectError: It failed; the message is the reason.
        """
        load_seconds, first_seconds = self._ask("load")
        return load_seconds, first_seconds

    def run(self, repetitions: int, *, warm: bool) -> list[float]:
        """Measure the seconds of each repetition, after one that does not count if `warm`."""
        seconds: list[float] = self._ask("run", repetitions, warm)
        time.sleep(SETTLE)
        return seconds

    def report(self) -> tuple[float | None, dict[int, NDArray[np.float32]]]:
        """Return the memory in bytes that it has taken, as in `Row.memory_mb`, and the logits by image."""
        peak, maps = self._ask("report")
        return peak, maps


def peak_memory() -> float | None:
    """Return the peak of resident memory of this process in bytes, or None if the system does not report it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next((x for x in status.read_text().splitlines() if x.startswith("VmHWM")), None)
        return None if line is None else 1024.0 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def _used_memory(device: str) -> float | None:
    if uses_all_cores(device):
        return peak_memory()
    import torch

    free, total = torch.cuda.mem_get_info()
    return float(total - free)


def _serve(
    pipe: Connection, build: Any, images: NDArray[np.float32], batch: int, threads: int | None, device: str
) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    gc.collect()
    before: float | None = None
    loaded: float | None = None
    batches = [np.take(images, range(i, i + batch), 0, mode="wrap") for i in range(0, len(images), batch)]
    maps: dict[int, NDArray[np.float32]] = {}
    run, turn = None, 0

    def step() -> float:
        nonlocal turn
        inputs = batches[turn % len(batches)]
        start = time.perf_counter()
        logits = run(inputs)  # type: ignore[misc]
        seconds = time.perf_counter() - start
        for offset, map_ in enumerate(logits):
            number = (turn % len(batches)) * batch + offset
            if number < min(len(images), KEPT) and number not in maps:
                maps[number] = np.array(map_)
        turn += 1
        return seconds

    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            if command == "ready":
                pipe.send(("ok", None))
            elif command == "load":
                before = _used_memory(device)
                start = time.perf_counter()
                run = build()
                seconds = (time.perf_counter() - start, step())
                loaded = _used_memory(device)
                pipe.send(("ok", seconds))
            elif command == "run":
                repetitions, warm = arguments
                if warm:
                    step()
                pipe.send(("ok", [step() for _ in range(repetitions)]))
            else:
                # A GPU's memory is that of all processes, of which only this one worked while it loaded.
                used = peak_memory() if uses_all_cores(device) else loaded
                pipe.send(("ok", (None if before is None or used is None else used - before, maps)))
        except Exception as error:  # noqa: BLE001 - any exception of a runtime becomes a note in this subject's row
            reason = str(error).strip().splitlines() or traceback.format_exception_only(error)
            pipe.send(("error", f"{type(error).__name__}: {reason[0][:200]}"))
