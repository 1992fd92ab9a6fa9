"""What a training set is made of: pairs of image and mask, the parts they stand in, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

__all__ = [
    "SPLITS",
    "Dataset",
    "DiscoveredPairs",
    "MaskSource",
    "MergedMask",
    "Pair",
    "Problem",
    "RegionMask",
    "Severity",
    "Split",
    "one_line",
    "pluralize",
    "problems_of",
]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class RegionMask:
    """The regions of one image in an annotation file (COCO, LabelMe, VIA); `regions.draw` makes a mask of them.

    Attributes:
        file: The annotation file, JSON.
        name: The image's name in it.
        size: (height, width) in pixels as the file says, None where it does not: the image's own then.
        regions: Lists of polygons [x1, y1, x2, y2, ...], or run-length codes as COCO has them.
        image: The image file, with whose size `size` is compared before anything is drawn; None to do without.
        kind: What the regions are, in words.
        is_normalized: Whether the coordinates of polygons are shares of the image's width and height, not pixels.
    """

    file: Path
    name: str
    size: tuple[int, int] | None
    regions: tuple[Any, ...] = field(repr=False, hash=False)
    image: Path | None = None
    kind: str = "COCO regions"
    is_normalized: bool = False

    def __str__(self) -> str:
        return f"{self.file} (regions of {self.name})"


@dataclass(frozen=True)
class MergedMask:
    """Several mask files of one image, one for each region; foreground is what is foreground in any of them.

    Attributes:
        files: Two or more.
    """

    files: tuple[Path, ...]

    def __str__(self) -> str:
        first, second = self.files[:2]
        if len(self.files) == 2:
            return f"{first} and {second}"
        return f"{first}, {second} and {len(self.files) - 2} more"


MaskSource: TypeAlias = Path | RegionMask | MergedMask


@dataclass(frozen=True)
class Pair:
    """One image and where its mask comes from.

    Attributes:
        name: unique within a set; the image's file name without its extension, with folders before it where the set
            has images of one name in several.
        image: an image file.
        mask: a mask file, several that are merged, or regions of an annotation file.
        group: what must stay together when the set is divided, such as a patient; None where nothing was said.
    """

    name: str
    image: Path
    mask: MaskSource
    group: str | None = None


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or looks wrong, with a set.

    Attributes:
        severity: "error" where training must not start, "warning" where somebody should look.
        message: what is wrong and what to do about it, in one line; it counts the files and names none.
        files: the files or names it is about, all of them.
    """

    severity: Severity
    message: str
    files: tuple[str, ...] = ()

    def line(self, shown: int = 3) -> str:
        """The message with the first few files behind it."""
        if not self.files:
            return one_line(self.message)
        more = f" and {len(self.files) - shown} more" if len(self.files) > shown else ""
        return f"{one_line(self.message)}: {', '.join(map(one_line, self.files[:shown]))}{more}"


def one_line(text: object, limit: int = 400) -> str:
    """Text of a foreign file or a file's name as part of a line: without line breaks, and not endless.

    Example:
        >>> one_line("large\\npolyp")
        'large\\\\npolyp'
    """
    shown = "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in str(text))
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def pluralize(count: int, noun: str) -> str:
    """ "1 mask", "2 masks"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def problems_of(severity: Severity, noun: str, what: str, files: Iterable[str]) -> list[Problem]:
    """One problem about these files, or none where there are no files.

    Example:
        >>> problems_of("warning", "mask", "without foreground", ["a.png", "b.png"])[0].message
        '2 masks without foreground'
    """
    listed = tuple(files)
    return [Problem(severity, f"{pluralize(len(listed), noun)} {what}", listed)] if listed else []


@dataclass(frozen=True)
class DiscoveredPairs:
    """What a layout gives before it is divided.

    Attributes:
        pairs: by the part the data names, None where it names none.
        layout: how the data was read, in words.
        problems: what was noticed.
        unmatched: images without masks and the other way round: they do no harm where a list says what to use.
        left_out: what the search left out, counted by kind, in words.
    """

    pairs: dict[Split | None, list[Pair]]
    layout: str
    problems: tuple[Problem, ...] = ()
    unmatched: tuple[Problem, ...] = ()
    left_out: str = ""


@dataclass(frozen=True)
class Dataset:
    """A training set, divided.

    Attributes:
        train: pairs to learn from.
        validation: pairs that choose epoch and threshold.
        test: pairs that training never touches; often empty.
        layout: how the data was read, in words.
        problems: what was noticed while finding the pairs; `check_dataset` adds what is in the files.
        left_out: files and folders that the search left out, counted by kind, in words; "" for none.
        source: Folder or file that the pairs were read from, None for pairs given in Python.
        val_fraction: Share of the training pairs that `open_dataset` was asked to hold out, None for its default.
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
        """Name of the data, without the folders above it."""
        if self.source is None:
            return f"{len(self.train) + len(self.validation) + len(self.test)} pairs"
        return self.source.name or self.source.resolve().name

    @property
    def parts(self) -> dict[Split, list[Pair]]:
        """The three lists by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}
