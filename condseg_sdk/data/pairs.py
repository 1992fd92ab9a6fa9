"""What a dataset consists of: pairs of image and mask, their splits, and the problems found in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from condseg_sdk.files import real_path
from condseg_sdk.words import pluralize

__all__ = [
    "SPLITS",
    "Dataset",
    "DiscoveredPairs",
    "IndexedMask",
    "MaskSource",
    "MergedMask",
    "Pair",
    "Problem",
    "RegionMask",
    "Severity",
    "Split",
    "one_line",
    "problems_of",
]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class RegionMask:
    """The regions of one image in an annotation file; `regions.draw` makes a mask of them.

    Attributes:
        file: Path of the annotation file.
        name: Name of the image in the file.
        size: (height, width) in pixels as the file gives it; None for the size of the image itself.
        regions: Lists of polygons [x1, y1, x2, y2, ...], or run-length codes as in COCO.
        image: Path of the image, whose size is compared with `size` before anything is drawn; None for no comparison.
        kind: Kind of the regions, in words.
        is_normalized: Whether the coordinates of polygons are fractions of the image's width and height, not pixels.
        labels: Name of the class of each region, "" for none; empty if the format names none.
    """

    file: Path
    name: str
    size: tuple[int, int] | None
    regions: tuple[Any, ...] = field(repr=False, hash=False)
    image: Path | None = None
    kind: str = "COCO regions"
    is_normalized: bool = False
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file} (regions of {self.name})"


@dataclass(frozen=True)
class MergedMask:
    """Several mask files of one image, one for each region or class; their union is the mask.

    Attributes:
        files: Paths of the masks.
        labels: Name of the class of each file; empty if the files do not stand for classes.
        others: Files of the other classes; if there are no `files`, the mask is empty and has their size.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...] = ()
    others: tuple[Path, ...] = ()

    def __str__(self) -> str:
        shown = self.files or self.others
        if len(shown) < 3:
            return " and ".join(map(str, shown))
        return f"{shown[0]}, {shown[1]} and {len(shown) - 2} more"


@dataclass(frozen=True)
class IndexedMask:
    """A mask file whose values are numbers of classes.

    Attributes:
        file: Path of the mask.
        values: Names of the classes that are foreground, with the values of each.
    """

    file: Path
    values: tuple[tuple[str, tuple[int, ...]], ...]

    def __str__(self) -> str:
        return str(self.file)


MaskSource: TypeAlias = Path | RegionMask | MergedMask | IndexedMask


@dataclass(frozen=True)
class Pair:
    """An image and the source of its mask.

    Attributes:
        name: Name, unique within a dataset: the image's file name without its extension, with folders in front if the
            dataset has images with the same name in several folders.
        image: Path of the image.
        mask: Path of a mask, several masks to merge, or regions of an annotation file.
        group: Pairs of one group, such as a patient, stay in one split; None for no group.

    Example:
        >>> Pair("frame1", Path("images/frame1.png"), Path("masks/frame1.png")).group is None
        True
    """

    name: str
    image: Path
    mask: MaskSource
    group: str | None = None


@dataclass(frozen=True)
class Problem:
    """A problem of a dataset.

    Attributes:
        severity: "error" if training must not start, "warning" if somebody should check.
        message: What is wrong and what to do, in one line, with the number of files and without their names.
        files: All files or names with the problem.
    """

    severity: Severity
    message: str
    files: tuple[str, ...] = ()

    def line(self, shown: int = 3) -> str:
        """Return the message followed by the first few files."""
        if not self.files:
            return one_line(self.message)
        more = f" and {len(self.files) - shown} more" if len(self.files) > shown else ""
        return f"{one_line(self.message)}: {', '.join(map(one_line, self.files[:shown]))}{more}"


def one_line(text: object, limit: int = 400) -> str:
    r"""Make text from a file, or a file's name, fit into one line: without line breaks and of limited length.

    Example:
        >>> one_line("large\npolyp")
        'large\\npolyp'
    """
    shown = "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in str(text))
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def problems_of(severity: Severity, noun: str, what: str, files: Iterable[str]) -> list[Problem]:
    """Return one problem with these files, or none if there are no files.

    Example:
        >>> problems_of("warning", "mask", "without foreground", ["a.png", "b.png"])[0].message
        '2 masks without foreground'
    """
    listed = tuple(files)
    return [Problem(severity, f"{pluralize(len(listed), noun)} {what}", listed)] if listed else []


@dataclass(frozen=True)
class DiscoveredPairs:
    """The pairs found in a folder or file, before they are divided.

    Attributes:
        pairs: Pairs by the split that the data defines, None where it defines none.
        layout: How the data was read, in words.
        problems: Problems found.
        unmatched: Images without masks and masks without images, which are no problem if a list names what to use.
        left_out: Number of files and folders that the search left out, by kind, in words.
    """

    pairs: dict[Split | None, list[Pair]]
    layout: str
    problems: tuple[Problem, ...] = ()
    unmatched: tuple[Problem, ...] = ()
    left_out: str = ""


@dataclass(frozen=True)
class Dataset:
    r"""A dataset, divided into training, validation and test pairs.

    Attributes:
        train: Pairs to learn from.
        validation: Pairs for choosing the epoch and the threshold.
        test: Pairs that training never uses; often empty.
        layout: How the data was read, in words.
        problems: What was noticed while finding the pairs; `check_dataset` adds what is in the files.
        left_out: Files and folders that the search left out, counted by kind, in words; "" for none.
        source: Folder or file that the pairs were read from, None for pairs given in Python.
        val_fraction: Share of the training pairs that `open_dataset` was asked to hold out, None for its default.

    Example:
        >>> from condseg_sdk import open_dataset
        >>> dataset = open_dataset("my_dataset", group_by=r"^(patient\d+)_")
        >>> dataset.name, len(dataset.train)
        ('my_dataset', 8)
    """

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]
    layout: str
    problems: tuple[Problem, ...] = ()
    left_out: str = ""
    source: Path | None = None
    val_fraction: float | None = None

    @property
    def name(self) -> str:
        """Name of the data, without the folders above it.

        Example:
            >>> from condseg_sdk import open_dataset
            >>> open_dataset("my_dataset").name
            'my_dataset'
        """
        if self.source is None:
            return f"{len(self.train) + len(self.validation) + len(self.test)} pairs"
        return self.source.name or real_path(self.source).name

    @property
    def splits(self) -> dict[Split, list[Pair]]:
        """The three lists by name.

        Example:
            >>> from condseg_sdk import open_dataset
            >>> {split: len(pairs) for split, pairs in open_dataset("my_dataset").splits.items()}
            {'train': 10, 'validation': 2, 'test': 0}
        """
        return {"train": self.train, "validation": self.validation, "test": self.test}
