"""A target of the fuzzer: how its files are made, damaged and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

__all__ = ["Case", "Target"]


@dataclass(frozen=True)
class Case:
    """Files on disk, at least one of which is damaged.

    Attributes:
        path: What is opened.
        names: Words of which an error must contain one, so that its reader knows which file is meant.
    """

    path: Path
    names: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One kind of file that the package reads.

    Attributes:
        name: For the command line and the log.
        make_corpus: Writes intact files into a folder, always the same ones. Runs once per campaign.
        mutate: Writes the files of a case into an empty folder. All it does follows from the generator it gets and from
            the corpus, so that a case is known by its number.
        read: Opens a case as a user would, up to a prediction where there is one. It returns, or raises a CondsegError.
        weight: Share of a campaign's cases, relative to the other targets.
    """

    name: str
    make_corpus: Callable[[Path], object]
    mutate: Callable[[Random, Path, Path], Case]
    read: Callable[[Case, Path], object]
    weight: float = field(kw_only=True)
