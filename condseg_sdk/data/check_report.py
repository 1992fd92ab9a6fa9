"""The report of the dataset check: a table for people, and an error to stop with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from condseg_sdk.data.pairs import Problem, Severity, Split, one_line
from condseg_sdk.data.training_digests import TrainingDigests
from condseg_sdk.errors import DatasetError
from condseg_sdk.words import pluralize

__all__ = ["DatasetReport", "SplitStatistics"]

SHOWN_FILES = 5


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of one split.

    Attributes:
        pairs: Number of pairs.
        groups: Number of groups; None if pairs have none.
        empty_masks: Number of masks without foreground.
        foreground: Median share of foreground, in (0, 1], over masks with foreground; None if all are empty.
    """

    pairs: int
    groups: int | None
    empty_masks: int
    foreground: float | None


@dataclass(frozen=True)
class DatasetReport:
    """The result of `check_dataset`.

    Attributes:
        layout: How the data was read, in words.
        splits: Statistics of the train, validation and test splits.
        image_sizes: (height, width) of the smallest and of the largest image; None if no image could be read.
        bits: Number of bits in use in images with 16-bit values; None if there are none.
        mask_kinds: Number of masks by how their values were read ("two values", "labels", ...).
        content: Digest of all images and masks in their order, by which changed files with the same names are noticed.
        problems: Problems, errors first. Training does not start if there is an error.
        left_out: Number of files and folders that the search left out, by kind, in words; "" for none.
        training_digests: Digests of the images of the train split, and of those that the base was trained on.

    Example:
        >>> from condseg_sdk.data import check_dataset, open_dataset
        >>> report = check_dataset(open_dataset("my_dataset"))
        >>> report.splits["train"].pairs, report.errors
        (10, ())
    """

    layout: str
    splits: Mapping[Split, SplitStatistics]
    image_sizes: tuple[tuple[int, int], tuple[int, int]] | None
    bits: int | None
    mask_kinds: Mapping[str, int]
    content: str
    problems: tuple[Problem, ...]
    left_out: str = ""
    training_digests: TrainingDigests | None = field(default=None, repr=False, compare=False)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems with which training does not start."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Problems that somebody should check."""
        return self._of("warning")

    def _of(self, severity: Severity) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == severity)

    def raise_if_wrong(self) -> None:
        """Raise an error if the dataset has errors.

        Raises:
            DatasetError: The dataset has errors. The message names the files and the remedy of the first one, and the
                number of the others.
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
        rows = [("split", "pairs", "groups", "empty masks", "median foreground")]
        for split, statistics in self.splits.items():
            groups = "-" if statistics.groups is None else str(statistics.groups)
            foreground = "-" if statistics.foreground is None else f"{statistics.foreground:.1%}"
            rows.append((split, str(statistics.pairs), groups, str(statistics.empty_masks), foreground))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
