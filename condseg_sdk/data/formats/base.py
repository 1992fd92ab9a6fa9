"""The interface of a format of annotation files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from condseg_sdk.data.pairs import Problem, RegionMask, Split
from condseg_sdk.errors import DatasetError
from condseg_sdk.json_files import read_json

__all__ = ["MAX_BYTES", "DatasetFormat", "Described", "load_json"]

Described: TypeAlias = dict[Split | None, list[RegionMask]]
"""Images by their split, None where the file defines none. An image without a path is searched for by its name."""

MAX_BYTES = 2**30  # size of a JSON file; the largest of COCO has 450 MB


def load_json(file: Path) -> Any:
    """Load an annotation file as JSON."""
    return read_json(file, error=DatasetError, remedy="export it again", max_bytes=MAX_BYTES)


@dataclass(frozen=True)
class DatasetFormat:
    """A format of annotation files. A new format is a module with a `FORMAT`, registered in `formats/__init__.py`.

    Attributes:
        name: Name of the format, as its users write it.
        recognizes: Returns whether loaded content is in this format.
        read: Converts the content and path of a file to the regions of its images and to the problems found in it. It
            raises DatasetError where nothing in the file can be used.
        suffixes: Suffixes of the annotation files, lower case with their dot.
        load: Loads a file's content. It raises DatasetError where that fails.
        one_image: Whether there is a file for each image.
    """

    name: str
    recognizes: Callable[[Any], bool]
    read: Callable[[Any, Path], tuple[Described, list[Problem]]]
    suffixes: tuple[str, ...] = (".json",)
    load: Callable[[Path], Any] = load_json
    one_image: bool = False
