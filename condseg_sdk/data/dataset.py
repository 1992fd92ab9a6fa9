"""From what people have (a folder, a CSV or annotation file, a list in Python) to a divided set of pairs.

Only names are looked at here; what is in the files is the business of `check.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from condseg_sdk.data import splits
from condseg_sdk.data.annotations import read_annotation_file
from condseg_sdk.data.folders import read_folder
from condseg_sdk.data.formats import ANNOTATION_SUFFIXES
from condseg_sdk.data.names import part_of
from condseg_sdk.data.pairs import SPLITS, Dataset, DiscoveredPairs, Pair, Split, pluralize
from condseg_sdk.data.tables import read_csv, read_csv_columns, read_pairs
from condseg_sdk.errors import DatasetError, OptionError

__all__ = ["DataSource", "data_name", "find_pairs", "find_part", "open_dataset"]

TABLE_SUFFIXES = (".csv", ".tsv")
logger = logging.getLogger("condseg_sdk")

PathLike: TypeAlias = str | os.PathLike[str]
DataSource: TypeAlias = PathLike | Sequence[tuple[PathLike, PathLike]] | Sequence[Pair]


def open_dataset(
    data: DataSource,
    *,
    masks: PathLike | None = None,
    train_list: PathLike | None = None,
    val_list: PathLike | None = None,
    group_by: str | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    """Find the pairs of a training set and divide them.

    Args:
        data: One of

            - a folder: images/ and masks/ (or labels/, GT/, annotations/, ...), with train/, val/ and test/ above or
              below them, or with lists train.txt, val.txt, test.txt beside them; masks beside their images with
              a word in their names (`1_mask.png`, `train_1_anno.bmp`); annotation files with their images;
            - a CSV file with the columns image, mask and, if wanted, group and split;
            - an annotation file: COCO (polygons or run lengths), LabelMe, VIA, or data.yaml of YOLO segmentation;
            - in Python, a list of (image, mask) paths or of `Pair` objects.
        masks: A folder of masks or annotation files, or an annotation file, that stands apart from a folder of images.
        train_list: A text file with the names to train on, one a line.
        val_list: The same for the validation part.
        group_by: Column of a CSV file, or a regular expression whose first group finds the pair's group (such as the
            patient) in the image's name (`r"^(patient\\d+)_"`). A group is never divided.
        val_fraction: Share of the training pairs to hold out for validation, in (0, 1), where the data names no
            validation split; default: 0.2 of fewer than 200 pairs, otherwise 0.1.
        seed: Seed of the random choice of these pairs.

    Returns:
        The pairs, divided. What looks wrong about them is in `problems`; `check_dataset` adds what is in the files.

    Raises:
        DatasetError: There is nothing to train on, or no telling which mask belongs to which image.
        OptionError: An argument does not fit.

    Example:
        >>> dataset = open_dataset("kvasir_seg", group_by=r"^(patient\\d+)")  # doctest: +SKIP
        >>> len(dataset.train), len(dataset.validation)  # doctest: +SKIP
        (900, 100)
    """
    given: dict[Split, PathLike | None] = {"train": train_list, "validation": val_list}
    lists = {part: Path(path) for part, path in given.items() if path is not None}
    found = _with_parts(data, _read(data, masks, group_by), lists)
    source = Path(data) if isinstance(data, (str, os.PathLike)) else None
    return replace(splits.divide(found, val_fraction=val_fraction, seed=seed), source=source)


def find_part(data: Dataset | DataSource, part: Split, *, masks: PathLike | None = None) -> list[Pair]:
    """The pairs of a part that the data itself names; none where it does not: nothing is drawn at random.

    Images without masks and masks without images, in whatever part, are logged as a warning.

    Args:
        data, masks: As for `open_dataset`.
        part: Which.

    Raises:
        DatasetError: There is nothing, or no telling which mask belongs to which image.
    """
    found = _with_parts(data, _read(data, masks, None), {})
    pairs = found.pairs.get(part, [])
    if pairs:
        for problem in found.unmatched:
            logger.warning("left out: %s", problem.line())
    return pairs


def find_pairs(
    data: Dataset | DataSource, *, names: Sequence[str] | None = None, masks: PathLike | None = None
) -> list[Pair]:
    """All pairs of a set, whatever part they stand in; for measuring, where nothing is divided.

    Args:
        data, masks: As for `open_dataset`.
        names: Only these, without extension, in this order; default: all, sorted by name.

    Raises:
        DatasetError: Images lack masks, masks lack images, a listed name does not exist.
    """
    found = splits.distinct_names(_read(data, masks, None))
    pairs = sorted((pair for items in found.pairs.values() for pair in items), key=lambda pair: pair.name)
    problems = list(found.problems)
    if names is None:
        problems += found.unmatched
    else:
        pairs, noticed = splits.select(pairs, names, source="the list")
        problems += noticed
    for problem in problems:
        if problem.severity == "error":
            raise DatasetError(problem.line())
    return pairs


def data_name(data: Dataset | DataSource) -> str:
    """The data in a word, without the folders above it."""
    if isinstance(data, (str, os.PathLike)):
        return Path(data).name or Path(data).resolve().name
    return pluralize(sum(map(len, data.parts.values())) if isinstance(data, Dataset) else len(data), "pair")


def _read(data: Any, masks: PathLike | None, group_by: str | None) -> DiscoveredPairs:
    """The layout's pairs, with their groups."""
    is_path = isinstance(data, (str, os.PathLike))
    # os.path, unlike pathlib, answers for any string.
    if masks is not None and not (is_path and os.path.isdir(data)):  # noqa: PTH112
        raise OptionError(f"masks={os.fspath(masks)!r} goes with a folder of images; data={str(data)[:80]!r} is none")
    if isinstance(data, Dataset):
        found = DiscoveredPairs({split: data.parts[split] for split in SPLITS}, data.layout, data.problems)
    elif not is_path:
        if not isinstance(data, Sequence):
            raise OptionError(
                f"data is {type(data).__name__}; give a folder, a CSV or annotation file, or a list of pairs"
            )
        found = read_pairs(data)
    elif os.path.isdir(data):  # noqa: PTH112
        found = read_folder(Path(data), None if masks is None else Path(masks))
    elif Path(data).suffix.lower() in TABLE_SUFFIXES:
        if group_by in read_csv_columns(Path(data)):
            return read_csv(Path(data), group_column=group_by)
        found = read_csv(Path(data))
    elif Path(data).suffix.lower() in ANNOTATION_SUFFIXES:
        found = read_annotation_file(Path(data), folder=Path(data).parent)
    elif os.path.isfile(data):  # noqa: PTH113
        known = ", ".join((*TABLE_SUFFIXES, *ANNOTATION_SUFFIXES))
        raise DatasetError(f"{data} is neither a folder nor a file named {known}; give one of these")
    else:
        found = read_folder(Path(data), None if masks is None else Path(masks))
    return found if group_by is None else splits.with_groups(found, group_by)


def _with_parts(data: Dataset | DataSource, found: DiscoveredPairs, lists: dict[Split, Path]) -> DiscoveredPairs:
    """Divided by the lists, else as the data names its parts."""
    found = splits.distinct_names(found)
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        lists = lists or _lists_beside(Path(data), found)
        found = found if lists else splits.by_names(found)
    return splits.by_lists(found, lists) if lists else found


def _lists_beside(folder: Path, found: DiscoveredPairs) -> dict[Split, Path]:
    """train.txt, val.txt and test.txt in a folder whose other folders do not divide it."""
    lists: dict[Split, Path] = {}
    if set(found.pairs) != {None}:
        return lists
    for path in sorted(folder.glob("*.txt")):
        part = part_of(path.stem)
        if part in lists:
            raise DatasetError(f"{lists[part]} and {path} both list the {part} part; keep one of them")
        if part is not None:
            lists[part] = path
    return lists
