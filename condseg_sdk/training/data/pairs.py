"""What a training set is made of: pairs of image and mask, the parts they stand in, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

__all__ = [
    "PARTS",
    "CocoMask",
    "Dataset",
    "Found",
    "MaskSource",
    "Pair",
    "Part",
    "Problem",
    "Severity",
    "amount",
    "problems_of",
]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class CocoMask:
    """The regions of one image in a COCO file; `coco.draw` makes a mask of them.

    Attributes:
        file: the JSON file.
        image: the image's name in it.
        size: (height, width) in pixels, as the file says.
        regions: the annotations' "segmentation" values: lists of polygons, or RLE objects.
    """

    file: Path
    image: str
    size: tuple[int, int]
    regions: tuple[Any, ...] = field(repr=False, hash=False)

    def __str__(self) -> str:
        return f"{self.file} (regions of {self.image})"


MaskSource: TypeAlias = Path | CocoMask


@dataclass(frozen=True)
class Pair:
    """One image and where its mask comes from.

    Attributes:
        name: unique within a set; the image's file name without its extension, with folders before it where the set
            has images of one name in several.
        image: an image file.
        mask: a mask file, or regions of a COCO file.
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
            return self.message
        more = f" and {len(self.files) - shown} more" if len(self.files) > shown else ""
        return f"{self.message}: {', '.join(self.files[:shown])}{more}"


def amount(count: int, noun: str) -> str:
    """ "1 mask", "2 masks"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def problems_of(severity: Severity, noun: str, what: str, files: Iterable[str]) -> list[Problem]:
    """One problem about these files, or none where there are no files.

    Example:
        >>> problems_of("warning", "mask", "without foreground", ["a.png", "b.png"])[0].message
        '2 masks without foreground'
    """
    listed = tuple(files)
    return [Problem(severity, f"{amount(len(listed), noun)} {what}", listed)] if listed else []


@dataclass(frozen=True)
class Found:
    """What a layout gives before it is divided.

    Attributes:
        pairs: by the part the data names, None where it names none.
        layout: how the data was read, in words.
        problems: what was noticed.
        unmatched: images without masks and the other way round: they do no harm where a list says what to use.
    """

    pairs: dict[Part | None, list[Pair]]
    layout: str
    problems: tuple[Problem, ...] = ()
    unmatched: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A training set, divided.

    Attributes:
        train: pairs to learn from.
        validation: pairs that choose epoch and threshold.
        test: pairs that training never touches; often empty.
        layout: how the data was read, in words.
        problems: what was noticed while finding the pairs; `check_dataset` adds what is in the files.
    """

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]
    layout: str
    problems: tuple[Problem, ...] = ()

    @property
    def parts(self) -> dict[Part, list[Pair]]:
        """The three lists by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}
