"""What the integrity check found, as a table for people and a reason to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from condseg_sdk.data.pairs import Problem, Severity, Split, one_line, pluralize
from condseg_sdk.errors import DatasetError

__all__ = ["DatasetReport", "PartStatistics"]

SHOWN_FILES = 5


@dataclass(frozen=True)
class PartStatistics:
    """One part of a set in figures.

    Attributes:
        pairs: how many.
        groups: how many different ones, None where pairs have none.
        empty_masks: masks without foreground.
        foreground: the median share of foreground, in (0, 1], over masks that have any; None where none has.
    """

    pairs: int
    groups: int | None
    empty_masks: int
    foreground: float | None


@dataclass(frozen=True)
class DatasetReport:
    """The result of `check_dataset`.

    Attributes:
        layout: how the data was read, in words.
        parts: figures of the train, validation and test parts.
        image_sizes: (height, width) of the smallest and the largest image, None where no image could be read.
        bits: Number of bits in use in images of 16-bit values, None where there are none.
        mask_kinds: how many masks were taken for what ("two values", "labels", ...).
        content: a digest of all images and masks in their order, by which other data under the same names is known.
        problems: errors first. Training must not start where there is an error.
        left_out: files and folders that the search left out, counted by kind, in words; "" for none.
    """

    layout: str
    parts: Mapping[Split, PartStatistics]
    image_sizes: tuple[tuple[int, int], tuple[int, int]] | None
    bits: int | None
    mask_kinds: Mapping[str, int]
    content: str
    problems: tuple[Problem, ...]
    left_out: str = ""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What training must not start with."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What somebody should look at."""
        return self._of("warning")

    def _of(self, severity: Severity) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == severity)

    def raise_if_wrong(self) -> None:
        """Stop here if the set has errors.

        Raises:
            DatasetError: it has; the message names the first one's files and remedy, and how many others there are.
        """
        if self.errors:
            others = len(self.errors) - 1
            more = (
                f" (and {pluralize(others, 'other error')}; `condseg finetune DATA --check` lists all)"
                if others
                else ""
            )
            raise DatasetError(self.errors[0].line() + more)

    def __str__(self) -> str:
        lines = [one_line(self.layout), "", *self._table(), ""]
        if self.image_sizes is not None:
            small, large = (f"{width}x{height}" for height, width in self.image_sizes)
            lines.append(f"images   {small}" + (f" to {large}" if large != small else ""))
        if self.mask_kinds:
            lines.append("masks    " + ", ".join(f"{count} by {kind}" for kind, count in self.mask_kinds.items()))
        if self.left_out:
            lines.append(f"left out {one_line(self.left_out)}")
        lines.append("")
        for problem in self.problems:
            lines.append(f"{problem.severity:<8} {one_line(problem.message)}")
            lines += [f"           {one_line(file)}" for file in problem.files[:SHOWN_FILES]]
            if len(problem.files) > SHOWN_FILES:
                lines.append(f"           ... and {len(problem.files) - SHOWN_FILES} more")
        lines.append(f"{pluralize(len(self.errors), 'error')}, {pluralize(len(self.warnings), 'warning')}")
        return "\n".join(lines)

    def _table(self) -> list[str]:
        rows = [("part", "pairs", "groups", "empty masks", "median foreground")]
        for part, figures in self.parts.items():
            groups = "-" if figures.groups is None else str(figures.groups)
            foreground = "-" if figures.foreground is None else f"{figures.foreground:.1%}"
            rows.append((part, str(figures.pairs), groups, str(figures.empty_masks), foreground))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
