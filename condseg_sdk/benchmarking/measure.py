"""Measures subjects in turn, a few repetitions each per round, so that a drift of the machine affects all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.benchmarking.flops import SIDE, graph_flops
from condseg_sdk.benchmarking.subjects import Subject
from condseg_sdk.benchmarking.worker import SubjectError, Worker
from condseg_sdk.metrics import score
from condseg_sdk.preprocessing import sigmoid

ROUNDS = 5  # minimum
SLOW_ROUNDS = 3  # minimum where one repetition takes more than SLOW
SLOW = 10.0  # seconds
SLICE = 0.4  # seconds for the repetitions of one subject in one round
MOST = 10  # repetitions in one round
WARM = 3.0  # seconds; a longer repetition does not need one before it to warm the caches


@dataclass(frozen=True)
class Setting:
    """Settings that all rows of a table share.

    Attributes:
        network: Name of the network.
        batch: Number of images in one call.
        size: Height and width of the images.
        threads: Number of threads; None for the defaults of PyTorch and ONNX Runtime.
        threshold: Lowest probability at which a pixel belongs to the mask.
    """

    network: str
    batch: int
    size: int
    threads: int | None
    threshold: float


@dataclass(frozen=True)
class Row:
    """Measurements of one subject; values that could not be measured are None, and `note` says why.

    Attributes:
        network: Name of the network.
        batch: Number of images in one call.
        size: Height and width of the images.
        runtime: As in `Subject`.
        form: As in `Subject`.
        precision: As in `Subject`.
        device: As in `Subject`.
        repetitions: Number of measured calls.
        rounds: Number of rounds.
        p50_ms: Median time of one call with the whole batch, in milliseconds.
        p95_ms: 95th percentile of that time.
        p99_ms: 99th percentile of that time.
        images_per_second: Images per second at the median.
        speedup: Median of the first row of the table divided by this one.
        memory_mb: Largest increase of resident memory since before loading; on a GPU, increase of its used memory from
            before loading to after the first call.
        load_s: Seconds for loading.
        first_s: Seconds for the first call, including compilation.
        file_mb: Size of the file that it is loaded from.
        max_difference: Largest difference in probability from float32 PyTorch, over `compared` images.
        dice: Mean Dice between the masks and float32 PyTorch's, over these images.
        compared: Number of compared images.
        floor: Median time divided by the time that convolutions and matrix products alone would take at the rate of a
            MatMul of side 2048 in the same runtime and run; for float32 ONNX on the CPU.
        note: Reason why it could not be measured.
    """

    network: str
    batch: int
    size: int
    runtime: str
    form: str
    precision: str
    device: str
    repetitions: int = 0
    rounds: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    speedup: float | None = None
    memory_mb: float | None = None
    load_s: float | None = None
    first_s: float | None = None
    file_mb: float | None = None
    max_difference: float | None = None
    dice: float | None = None
    compared: int = 0
    floor: float | None = None
    note: str = ""


@dataclass
class _Entry:
    """The state of a subject during the measurement."""

    subject: Subject
    worker: Worker | None = None
    loaded: tuple[float, float] | None = None  # seconds for loading, and for the first call
    seconds: list[float] = field(default_factory=list)
    last: float = 0.0
    rounds: int = 0
    note: str = ""


def measure(
    subjects: Sequence[Subject],
    setting: Setting,
    images: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    budget: float,
    ceiling: Subject | None = None,
    finished: Callable[[list[Row]], object] | None = None,
    progress: Callable[[str], object],
) -> list[Row]:
    """Measure subjects at one batch and size.

    Args:
        subjects: Subjects to measure; `speedup` refers to the first one.
        setting: Batch, size and so on.
        images: Normalized images, float32 (N, 3, h, w), which are used batch by batch.
        reference: Logits of float32 PyTorch for them, (N, h, w).
        budget: Seconds to spend on rounds beyond the minimum number.
        ceiling: Subject for the rate of matrix products, see `flops.matmul_subject`.
        finished: Function that is called with the rows so far, to save them, after each subject of the first round and
            after each other round; `floor` is still missing.
        progress: Function that is called with lines about the progress.

    Returns:
        A row for each subject, in their order.
    """
    entries = [_Entry(subject, note=subject.missing) for subject in (*subjects, *([ceiling] if ceiling else []))]
    with ExitStack() as stack:
        for entry in entries:
            if entry.subject.build is None or entry.note:
                continue
            worker = Worker(entry.subject, images, batch=setting.batch, threads=setting.threads)
            entry.worker = stack.enter_context(worker)
        started = [entry for entry in entries if entry.worker]
        for entry in started:  # all import PyTorch at the same time, and none while another is measured
            _attempt(entry, lambda _, worker: worker.wait())
        table = partial(_rows, entries[: len(subjects)], setting, reference)
        for entry in started:
            if entry.note:
                continue
            progress(f"loading {entry.subject.label}")
            _attempt(entry, _load)
            if entry.loaded:
                _attempt(entry, _turn)  # its part of the first round: loading the next one can take minutes
            if finished:
                finished(table(None))
        for line in _rounds(entries, budget):
            progress(line)
            if finished:
                finished(table(None))
        rate = None
        if ceiling is not None and entries[-1].seconds:
            rate = 2 * SIDE**3 / float(np.median(entries[-1].seconds))
        return table(rate)


def _attempt(entry: _Entry, work: Callable[[_Entry, Worker], object]) -> None:
    """Run some work with a subject's worker; a failure becomes its note, and the other subjects continue."""
    assert entry.worker is not None
    try:
        work(entry, entry.worker)
    except SubjectError as error:
        entry.note = str(error)


def _load(entry: _Entry, worker: Worker) -> None:
    entry.loaded = worker.load()
    entry.last = entry.loaded[1]


def _turn(entry: _Entry, worker: Worker) -> None:
    """Measure a subject's repetitions of one round."""
    repetitions = min(MOST, max(1, int(SLICE / max(entry.last, 1e-6))))
    seconds = worker.run(repetitions, warm=entry.last < WARM)
    entry.seconds += seconds
    entry.rounds += 1
    entry.last = float(np.median(seconds))


def _rounds(entries: Sequence[_Entry], budget: float) -> Iterator[str]:
    """Measure the rounds after the first one; yield a line about each that is done."""
    spent = sum(sum(entry.seconds) for entry in entries)
    number = 1
    while running := [e for e in entries if e.worker and not e.note and (e.rounds < _least(e) or spent < budget)]:
        for entry in running:
            before = len(entry.seconds)
            _attempt(entry, _turn)
            spent += sum(entry.seconds[before:])
        number += 1
        yield f"round {number}, {spent:.0f} s of {budget:.0f}"


def _least(entry: _Entry) -> int:
    return SLOW_ROUNDS if entry.last > SLOW else ROUNDS


def _rows(entries: Sequence[_Entry], setting: Setting, reference: NDArray[np.float32], rate: float | None) -> list[Row]:
    rows = [_row(entry, setting, reference, rate) for entry in entries]
    first = rows[0].p50_ms
    return [replace(row, speedup=first / row.p50_ms) if first and row.p50_ms else row for row in rows]


def _row(entry: _Entry, setting: Setting, reference: NDArray[np.float32], rate: float | None) -> Row:
    subject = entry.subject
    about = (subject.runtime, subject.form, subject.precision, subject.device)
    row = Row(setting.network, setting.batch, setting.size, *about, note=entry.note)
    if entry.worker is None or entry.loaded is None or not entry.seconds:
        return row
    try:
        peak, logits = entry.worker.report()
    except SubjectError as error:
        return replace(row, note=str(error))
    p50, p95, p99 = percentiles(entry.seconds)
    difference, dice = agreement(logits, reference, setting.threshold)
    floor = None
    if rate and subject.runtime == "ONNX Runtime" and (subject.precision, subject.device) == ("float32", "cpu"):
        assert subject.file is not None
        floor = p50 * rate / graph_flops(subject.file, (setting.batch, 3, setting.size, setting.size))
    return replace(
        row,
        repetitions=len(entry.seconds),
        rounds=entry.rounds,
        p50_ms=1e3 * p50,
        p95_ms=1e3 * p95,
        p99_ms=1e3 * p99,
        images_per_second=setting.batch / p50,
        memory_mb=None if peak is None else peak / 1e6,
        load_s=entry.loaded[0],
        first_s=entry.loaded[1],
        file_mb=None if subject.file is None else subject.file.stat().st_size / 1e6,
        max_difference=difference,
        dice=dice,
        compared=len(logits),
        floor=floor,
    )


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Compute the median, the 95th and the 99th percentile, interpolated linearly.

    Example:
        >>> percentiles([1.0, 2.0, 3.0, 4.0, 5.0])
        (3.0, 4.8, 4.96)
    """
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return p50, p95, p99


def agreement(
    logits: Mapping[int, NDArray[np.float32]], reference: NDArray[np.float32], threshold: float
) -> tuple[float, float]:
    """Compute the largest difference in probability and the mean Dice of the masks.

    Args:
        logits: Logits (h, w) by image number.
        reference: Logits of float32 PyTorch, (N, h, w).
        threshold: Lowest probability at which a pixel belongs to the mask.
    """
    differences, dices = [], []
    for number, ours in logits.items():
        first, second = (sigmoid(x) for x in (ours, reference[number]))
        differences.append(float(np.abs(first - second).max()))
        dices.append(score(first >= threshold, second >= threshold).dice)
    return max(differences), float(np.mean(dices))
