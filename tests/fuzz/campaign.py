"""Runs many cases in worker processes that are replaced when they crash, hang or need too much memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .target import Target
from .worker import Verdict, our_frame, silence, work

__all__ = ["Limits", "Log", "make_corpora", "plan", "run_cases", "summary"]

POLL = 0.05  # seconds between two looks at a worker's memory
RECYCLED_AFTER = 2000  # cases, so that what one leaves behind does not add up
# Loaded once; workers are forked from there. Whatever starts threads on import must not be in it.
PRELOADED = ["condseg_sdk.predictor", "condseg_sdk.data", "condseg_sdk.weights.convert", "onnx"]


@dataclass(frozen=True)
class Limits:
    """The limits of a case.

    Attributes:
        seconds: Processor time of its process, and time in which it does nothing at all.
        megabytes: Resident memory of its process.
    """

    seconds: float = 20.0
    megabytes: int = 2000


class Log:
    """The verdicts so far, one line of JSON each. Lines are only appended, and the last line of a case counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.verdicts: dict[tuple[str, int], Verdict] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                self._keep(Verdict(**json.loads(line)))
            except (ValueError, TypeError):
                continue  # the line of a campaign that was killed as it wrote
        self._is_torn = bool(text) and not text.endswith("\n")

    def add(self, verdict: Verdict) -> None:
        self._keep(verdict)
        values = {key: value for key, value in asdict(verdict).items() if key != "details"}
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._is_torn + json.dumps(values) + "\n")
        self._is_torn = False

    def _keep(self, verdict: Verdict) -> None:
        self.verdicts[verdict.target, verdict.number] = verdict


def make_corpora(targets: Mapping[str, Target], folder: Path) -> None:
    """Write the intact files of all targets once, in a separate process, since this may train and start threads."""
    missing = [name for name in targets if not (folder / name).is_dir()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        process = multiprocessing.get_context("spawn").Process(
            target=_make_corpora, args=([targets[name] for name in missing], folder)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(
                f"the corpora of {', '.join(missing)} could not be made; see {folder.parent / 'corpora.txt'}"
            )


def _make_corpora(targets: Iterable[Target], folder: Path) -> None:
    silence(folder.parent / "corpora.txt")
    for target in targets:
        part = folder / f".{target.name}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        target.make_corpus(part)
        part.rename(folder / target.name)


def plan(targets: Mapping[str, Target], count: int, *, first: int = 0) -> list[tuple[str, int]]:
    """Distribute `count` cases over the targets by their weights, in turns, so that any part of the list has all."""
    total = sum(target.weight for target in targets.values())
    shares = {name: max(1, round(count * target.weight / total)) for name, target in targets.items()}
    cases = [((i + 0.5) / share, name, first + i) for name, share in shares.items() for i in range(share)]
    return [(name, number) for _, name, number in sorted(cases)]


def run_cases(
    cases: Iterable[tuple[str, int]],
    targets: Mapping[str, Target],
    folder: Path,
    *,
    jobs: int = 1,
    limits: Limits = Limits(),
    deadline: float | None = None,
) -> Iterator[Verdict]:
    """Run cases in worker processes.

    Args:
        cases: (target, number) each.
        targets: By name; they must be found by import, since workers get them pickled.
        folder: With corpus/ in it; each worker gets a folder beside that.
        jobs: Number of workers.
        limits: Of each case.
        deadline: By `time.monotonic`; no case is begun after it.

    Yields:
        Verdicts, as cases end.
    """
    waiting = iter(cases)
    workers = [_Worker(folder / f"worker-{number}", targets, folder / "corpus", limits) for number in range(jobs)]

    def give(worker: _Worker) -> bool:
        case = None if deadline is not None and time.monotonic() > deadline else next(waiting, None)
        if case is not None:
            worker.begin(case)
        return case is not None

    try:
        busy = [worker for worker in workers if give(worker)]
        while busy:
            wait([worker.connection for worker in busy], POLL)
            for worker in list(busy):
                verdict = worker.verdict()
                if verdict is None:
                    continue
                yield verdict
                if not give(worker):
                    busy.remove(worker)
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class _Worker:
    """A process that is started when it is first needed, and again after it was lost."""

    folder: Path
    targets: Mapping[str, Target]
    corpus: Path
    limits: Limits
    process: Any = None
    connection: Connection = field(init=False)
    done: int = 0
    case: tuple[str, int] = ("", 0)
    start: float = 0.0
    active: float = 0.0
    computed: float = 0.0
    computed_before: float = 0.0

    def begin(self, case: tuple[str, int]) -> None:
        if self.process is not None and self.done >= RECYCLED_AFTER:
            self.stop()
        if self.process is None:
            self._launch()
        self.case = case
        self.start = self.active = time.monotonic()
        self.computed = self.computed_before = self._activity()[1]
        self.connection.send(case)

    def _launch(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        has_server = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if has_server else "spawn")
        if has_server:
            context.set_forkserver_preload(PRELOADED)
        self.connection, theirs = context.Pipe()
        # No daemon: what is read may start processes of its own.
        self.process = context.Process(target=work, args=(theirs, self.targets, self.corpus, self.folder))
        self.process.start()
        theirs.close()
        self.done = 0

    def verdict(self) -> Verdict | None:
        """Return how the current case ended; None while it runs."""
        try:
            if self.connection.poll():
                verdict: Verdict = self.connection.recv()
                self.done += 1
                if verdict.megabytes <= self.limits.megabytes:
                    return verdict
                self.stop()
                return self._lost(f"memory over {self.limits.megabytes} MB", verdict.message, verdict.megabytes)
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            self.stop()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return self._lost(f"crash ({name})", self._output())
        megabytes, is_slow = self._megabytes(), self._is_slow()
        if megabytes <= self.limits.megabytes and not is_slow:
            return None
        place = self._kill_and_locate()
        if megabytes > self.limits.megabytes:
            return self._lost(f"memory over {self.limits.megabytes} MB at {place}", "", megabytes)
        return self._lost(f"longer than {self.limits.seconds:g} s at {place}", "", megabytes)

    def _lost(self, kind: str, message: str, megabytes: int = 0) -> Verdict:
        seconds = round(time.monotonic() - self.start, 3)
        return Verdict(*self.case, "fail", kind, message, seconds, megabytes)

    def _megabytes(self) -> int:
        """Return the resident memory; 0 if the system does not report it."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20

    def _is_slow(self) -> bool:
        """Whether the case has used up its processor time or its idle time; a busy machine does not count as a hang."""
        state, computed = self._activity()
        now = time.monotonic()
        if state in "RD" or computed > self.computed:
            self.active, self.computed = now, computed
        return max(computed - self.computed_before, now - self.active) > self.limits.seconds

    def _activity(self) -> tuple[str, float]:
        """Return Linux's letter for the state of the process, and the processor time of all its threads in seconds."""
        try:
            values = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return "S", 0.0
        return values[0], (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")

    def _kill_and_locate(self) -> str:
        """End the process, and return its position in the package's code."""
        stack = self.folder / "stack.txt"
        if hasattr(signal, "SIGUSR1") and stack.exists():
            os.kill(self.process.pid, signal.SIGUSR1)
            for _ in range(20):
                time.sleep(0.1)
                if stack.stat().st_size:
                    break
        self.stop(at_once=True)
        return our_frame(stack.read_text()) if stack.exists() else "an unknown place"

    def _output(self) -> str:
        """Return the end of the process's output."""
        path = self.folder / "output.txt"
        return path.read_text(errors="replace")[-300:] if path.exists() else ""

    def stop(self, *, at_once: bool = False) -> None:
        if self.process is None:
            return
        self.connection.close()
        self.process.join(0 if at_once else 5)  # an idle one ends by itself
        self.process.kill()
        self.process.join()
        self.process = None


def summary(verdicts: Iterable[Verdict]) -> list[str]:
    """Summarize the counts by target, and each kind of failure once with its cases."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failures: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        counts[verdict.target][verdict.verdict] += 1
        if verdict.verdict == "fail":
            failures[verdict.target, verdict.kind].append(verdict)
    lines = [f"{'target':<12}{'cases':>8}{'ok':>8}{'error':>8}{'fail':>8}"]
    for name, count in sorted(counts.items()):
        lines.append(f"{name:<12}{count.total():>8}{count['ok']:>8}{count['error']:>8}{count['fail']:>8}")
    for (name, kind), found in sorted(failures.items(), key=lambda item: (item[0][0], -len(item[1]))):
        numbers = ", ".join(str(verdict.number) for verdict in found[:5])
        lines.append(f"{name}: {kind}, {len(found)} x (--target {name} --case {numbers}): {found[0].message[:200]!r}")
    return lines
