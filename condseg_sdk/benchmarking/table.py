"""Writes rows as CSV for programs, and as Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path

from condseg_sdk.benchmarking.measure import Row
from condseg_sdk.errors import OptionError
from condseg_sdk.files import write_csv, write_text

COLUMNS = (
    "runtime", "form", "precision", "device", "p50 ms", "p95", "p99", "images/s", "speed", "memory MB", "load s",
    "first s", "file MB", "max diff", "Dice", "floor", "n",
)  # fmt: skip
PREDICTOR_FORMS = ("inference form", "ours")
EXACT_DICE = 0.9995  # what rounds to a Dice of 1.000 is exact
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows as CSV with all digits; empty cells were not measured."""
    return write_csv(path, [f.name for f in fields(Row)], [asdict(row) for row in rows])


def markdown(rows: Sequence[Row], header: Sequence[str], *, command: str) -> str:
    """Write facts about the machine, the command, and a table of measured rows for each network, batch and size."""
    lines = [*header, *_not_measured([row for row in rows if row.p50_ms is None])]
    parts = ["\n".join(f"- {line}" for line in lines), f"```bash\n{command}\n```"]
    measured = [row for row in rows if row.p50_ms is not None]
    for (network, batch, size), group in groupby(measured, lambda row: (row.network, row.batch, row.size)):
        parts.append(f"### {network}, batch {batch}, {size}x{size}")
        head = [_line(COLUMNS), _line(["---"] * 4 + ["---:"] * (len(COLUMNS) - 4))]
        parts.append("\n".join([*head, *(_line(cells(row)) for row in group)]))
    return "\n\n".join(parts) + "\n"


def summary(rows: Sequence[Row]) -> str:
    """Write the speed of a network in each runtime as a table: the ratio first, then the time.

    Speeds are relative to PyTorch in float32 on the CPU, the inference form that `Predictor` runs by default. The
    forms that `Predictor` does not run are left out.

    Args:
        rows: Measured rows of one batch and size, with that of PyTorch on the CPU for each network.
    """
    used = [row for row in rows if row.p50_ms is not None and row.form in PREDICTOR_FORMS]
    networks = list(dict.fromkeys(row.network for row in used))
    by_way: dict[str, dict[str, Row]] = {}
    for row in used:
        device = "" if row.device in ("cpu", "openvino:cpu") else f" on {row.device}"
        by_way.setdefault(f"{row.runtime} {row.precision}{device}", {})[row.network] = row
    base = by_way["PyTorch float32"]
    lines = [_line(["", *networks]), _line(["---"] + ["---:"] * len(networks))]
    for way, of in by_way.items():
        lines.append(_line([way, *(_speed(of.get(name), base[name]) for name in networks)]))
    return "\n".join(lines)


def _speed(row: Row | None, base: Row) -> str:
    if row is None or row.p50_ms is None or base.p50_ms is None:
        return ""
    rounded = "" if row.dice is None or row.dice >= EXACT_DICE else f", Dice {row.dice:.3f}"
    return f"**{base.p50_ms / row.p50_ms:.2f}x** ({_number(row.p50_ms)} ms{rounded})"


def cells(row: Row) -> list[str]:
    """Return a measured row as text, in the order of `COLUMNS`."""
    return [
        row.runtime,
        row.form,
        row.precision,
        row.device,
        *(_number(x) for x in (row.p50_ms, row.p95_ms, row.p99_ms, row.images_per_second)),
        "" if row.speedup is None else f"{row.speedup:.2f}x",
        "" if row.memory_mb is None else f"{row.memory_mb:.0f}",
        *(_number(x) for x in (row.load_s, row.first_s, row.file_mb)),
        "" if row.max_difference is None else f"{row.max_difference:.0e}",
        "" if row.dice is None else f"{row.dice:.4f}",
        "" if row.floor is None else f"{row.floor:.2f}",
        str(row.repetitions),
    ]


def _not_measured(rows: Sequence[Row]) -> list[str]:
    """Return one line about the rows without metrics, if there are any; each reason appears once."""
    by_reason: dict[str, dict[str, None]] = {}
    for row in rows:
        reason = by_reason.setdefault(row.note or "no reason known", {})
        reason[f"{row.runtime} {row.form} on {row.device}"] = None
    reasons = [f"{reason} ({', '.join(labels)})" for reason, labels in by_reason.items()]
    return [f"Not measured: {'; '.join(reasons)}"] if reasons else []


def include(path: Path, text: str) -> Path:
    """Put a text between the two marks in a Markdown file.

    Args:
        path: Path of the Markdown file.
        text: Text that replaces what is between the marks.

    Raises:
        OptionError: The file cannot be read or has no such marks.
    """
    try:
        before = path.read_text(encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}); pass a Markdown file with both marks") from error
    if BEGIN not in before or END not in before.partition(BEGIN)[2]:
        raise OptionError(f"{path} must have the lines {BEGIN} and {END}, in this order")
    head, _, rest = before.partition(BEGIN)
    after = f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.partition(END)[2]}"
    return write_text(path, after)


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _number(value: float | None) -> str:
    """Format a number with three digits, or all before the point: 1234, 123, 12.3, 1.23."""
    if value is None:
        return ""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
