"""Reads pairs from a CSV file with a row for each, or from a list of (image, mask) in Python."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from condseg_sdk.data.names import STRAY_BYTES, duplicate_names, normalize_name, split_of_word, unique_names
from condseg_sdk.data.pairs import DiscoveredPairs, MaskSource, Pair, Problem, Split, one_line, problems_of
from condseg_sdk.data.text_files import read_text
from condseg_sdk.errors import DatasetError
from condseg_sdk.words import pluralize

__all__ = ["names_pairs", "read_csv", "read_csv_columns", "read_pairs"]

COLUMNS = {
    "image": ("image", "image_path"),
    "mask": ("mask", "mask_path"),
    "group": ("group", "groups"),
    "split": ("split",),
}
DELIMITERS = ",;\t"


def read_csv(path: Path, *, group_column: str | None = None) -> DiscoveredPairs:
    """Read pairs from a CSV file with the columns image and mask, and optionally group and split.

    Args:
        path: Path of a text file whose first line names the columns, with commas, semicolons or tabs between values.
            Paths in it are relative to its folder.
        group_column: Name of the column to use as group instead of "group".

    Raises:
        DatasetError: Columns or values are missing, an image is in two rows, or no file exists.
    """
    columns, rows = _rows(path)
    chosen = {key: _column(columns, names) for key, names in COLUMNS.items()}
    if group_column is not None:
        chosen["group"] = group_column
    if chosen["image"] is None or chosen["mask"] is None:
        raise DatasetError(
            f"{path}: the first line names the columns {one_line(columns, 200)}; it must name 'image' and 'mask'"
        )
    used = [column for column in chosen.values() if column is not None]
    for line, row in rows:
        empty = [column for column in used if not row[column]]
        if empty:
            raise DatasetError(f"{path}: line {line} has no {empty[0]}; fill it in, or remove the line or the column")
    pairs = _named(
        [
            Pair(
                name="",
                image=_path(path.parent, row[chosen["image"]]),
                mask=_path(path.parent, row[chosen["mask"]]),
                group=row[chosen["group"]] if chosen["group"] else None,
            )
            for _, row in rows
        ]
    )
    by_split: dict[Split | None, list[Pair]] = defaultdict(list)
    for (line, row), pair in zip(rows, pairs, strict=True):
        by_split[_split(path, line, row[chosen["split"]]) if chosen["split"] else None].append(pair)
    return _found(dict(by_split), path.name, f"CSV {path.name} with the columns {', '.join(map(repr, used))}")


def names_pairs(path: Path) -> bool:
    """Return whether a CSV file can be read and names images and masks that exist."""
    try:
        return any(read_csv(path).pairs.values())
    except DatasetError:
        return False


def read_csv_columns(path: Path) -> list[str]:
    """Read the names of a CSV file's columns.

    Raises:
        DatasetError: As for `read_csv`.
    """
    return _rows(path)[0]


def read_pairs(items: Sequence[object]) -> DiscoveredPairs:
    """Read pairs given in Python as (image, mask) paths or `Pair` objects.

    Raises:
        DatasetError: An item is neither, an image is given twice, or no file exists.
    """
    if not items:
        raise DatasetError("an empty list contains no pairs; pass (image, mask) with two paths for each")
    pairs = [item if isinstance(item, Pair) else _pair(item) for item in items]
    if not all(isinstance(item, Pair) for item in items):
        pairs = _named(pairs)
    found = _found({None: pairs}, "the list", f"a list of {pluralize(len(pairs), 'pair')}")
    if again := duplicate_names(pair.name for pair in pairs):
        raise DatasetError(f"two pairs are named {again[0][0]!r}; names must differ")
    return found


def _pair(item: object) -> Pair:
    paths = item if isinstance(item, (tuple, list)) else ()
    if len(paths) != 2 or not all(isinstance(path, (str, os.PathLike)) for path in paths):
        raise DatasetError(f"{str(item)[:80]!r} is not a pair; pass (image, mask) with two paths")
    return Pair("", Path(paths[0]), Path(paths[1]))


def _named(pairs: Sequence[Pair]) -> list[Pair]:
    """Name the pairs after their images."""
    names = unique_names([pair.image for pair in pairs])
    return [replace(pair, name=name) for pair, name in zip(pairs, names, strict=True)]


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read the columns, and the rows with their line numbers; values have no spaces around them."""
    text = read_text(path, remedy="save it as CSV in UTF-8")
    if text[:4].lower() == "sep=":  # for Excel: the delimiter, before the columns
        text = text.partition("\n")[2]
    try:
        file = io.StringIO(text, newline="")
        header = file.readline()
        delimiter = max(DELIMITERS, key=header.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        lines = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{path} cannot be read as CSV ({error}); save it as CSV in UTF-8") from error
    filled = [(line, values) for line, values in lines if any(values)]
    if len(filled) < 2:
        raise DatasetError(f"{path} has no rows; its first line names the columns image and mask, the others are pairs")
    columns = filled[0][1]
    for line, values in filled[1:]:
        if len(values) != len(columns):
            raise DatasetError(
                f"{path}: line {line} has {len(values)} values for {len(columns)} columns; quote names that contain "
                f"{delimiter!r}"
            )
    if duplicate_names(columns):
        raise DatasetError(f"{path}: two columns are named {duplicate_names(columns)[0][0]!r}; remove one")
    return columns, [(line, dict(zip(columns, values, strict=True))) for line, values in filled[1:]]


def _column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    return next((column for column in columns if normalize_name(column) in names), None)


def _path(folder: Path, value: str) -> Path:
    """Find the file that a cell names: as written, otherwise as Windows or a system without UTF-8 writes it."""
    spellings = (value, value.replace("\\", "/"))
    readings = (read(text) for read in (str, _as_latin1, _as_stray_bytes) for text in spellings)
    # Unlike pathlib's, this answers for any string.
    return next((folder / text for text in readings if os.path.isfile(folder / text)), folder / value)  # noqa: PTH113


def _as_latin1(value: str) -> str:
    return value.translate(STRAY_BYTES)


def _as_stray_bytes(value: str) -> str:
    """Return the name of a file whose letters are single bytes on disk."""
    return value.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _split(path: Path, line: int, value: str) -> Split:
    split = split_of_word(value)
    if split is None:
        shown = one_line(repr(value), 60)
        raise DatasetError(f"{path}: line {line} has the split {shown}; it must be train, validation or test")
    return split


def _found(pairs: dict[Split | None, list[Pair]], source: str, layout: str) -> DiscoveredPairs:
    """Check that no image is listed twice and that files exist."""
    every = [pair for items in pairs.values() for pair in items]
    again = duplicate_names(os.path.normpath(pair.image) for pair in every)
    if again:
        raise DatasetError(f"{layout}: the image {again[0][1]} is listed twice; keep one of its rows")
    files = [path for pair in every for path in (pair.image, pair.mask) if isinstance(path, Path)]
    missing = [str(path) for path in files if not os.path.isfile(path)]  # noqa: PTH113
    if len(missing) == len(files):
        raise DatasetError(f"{layout}: none of its files exists, such as {missing[0]}; check the paths")
    problems = problems_of("error", "file", f"that cannot be found; correct its path in {source}", missing)
    return DiscoveredPairs(pairs, layout, (*problems, *_shared_masks(every)))


def _shared_masks(pairs: Sequence[Pair]) -> list[Problem]:
    images: dict[MaskSource, list[str]] = defaultdict(list)
    for pair in pairs:
        if isinstance(pair.mask, Path):
            images[pair.mask].append(str(pair.image))
    shared = [f"{mask} for {' and '.join(names)}" for mask, names in images.items() if len(names) > 1]
    return problems_of(
        "warning", "mask", "given for several images; correct it unless they show the same scene", shared
    )
