"""Opens datasets: a folder, a CSV or annotation file, or a list in Python becomes divided pairs.

Only names are read here; `check.py` looks into the files.
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
from condseg_sdk.data.classes import check_classes, select_classes
from condseg_sdk.data.folders import read_folder
from condseg_sdk.data.formats import ANNOTATION_SUFFIXES
from condseg_sdk.data.names import split_of_word
from condseg_sdk.data.nnunet import is_nnunet, read_nnunet
from condseg_sdk.data.pairs import SPLITS, Dataset, DiscoveredPairs, Pair, Split
from condseg_sdk.data.tables import read_csv, read_csv_columns, read_pairs
from condseg_sdk.errors import DatasetError, OptionError, errors_about
from condseg_sdk.files import real_path
from condseg_sdk.options import check_number, check_path, check_seed, check_text
from condseg_sdk.words import pluralize

__all__ = ["DataSource", "data_name", "find_pairs", "find_split", "open_dataset"]

TABLE_SUFFIXES = (".csv", ".tsv")
logger = logging.getLogger("condseg_sdk")

PathLike: TypeAlias = str | os.PathLike[str]
DataSource: TypeAlias = PathLike | Sequence[tuple[PathLike, PathLike]] | Sequence[Pair]


def open_dataset(
    data: DataSource,
    *,
    masks: PathLike | None = None,
    classes: Sequence[str] | str | None = None,
    train_list: PathLike | None = None,
    val_list: PathLike | None = None,
    group_by: str | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    r"""Find the pairs of a dataset and divide them into train, validation and test.

    Args:
        data: Data in one of these layouts:

            - a folder: images/ and masks/ (or labels/, GT/, annotations/, ...), with train/, val/ and test/ above or
              below them, or with lists train.txt, val.txt, test.txt beside them; masks beside their images with
              a word in their names (`1_mask.png`, `train_1_anno.bmp`); annotation files with their images;
            - a CSV file with the columns image, mask and optionally group and split;
            - an annotation file: COCO (polygons or run lengths), LabelMe, VIA, CVAT XML, GeoJSON, or data.yaml of YOLO
              segmentation;
            - a dataset of nnU-Net: its folder, with dataset.json, imagesTr/ and labelsTr/;
            - in Python, a list of (image, mask) paths or of `Pair` objects.
        masks: Folder of masks or annotation files, or one annotation file, if `data` is a folder of images only.
        classes: Names of the classes that are foreground, where annotations, dataset.json or files name classes;
            everything else is background. Default: all of them.
        train_list: Text file with the names to train on, one per line.
        val_list: Text file with the names to validate on, one per line.
        group_by: Column of a CSV file, or a regular expression whose first group finds the pair's group (such as the
            patient) in the image's name (`r"^(patient\d+)_"`). A group is never divided.
        val_fraction: Share of the training pairs to hold out for validation, in (0, 1), where the data defines no
            validation split; default: 0.2 if there are fewer than 200 pairs, otherwise 0.1.
        seed: Seed of the random choice of these pairs.

    Returns:
        The dataset. Its `problems` concern names and folders; `check_dataset` finds those inside the files.

    Raises:
        DatasetError: There is nothing to train on, or it is not clear which mask belongs to which image.
        OptionError: The value of an argument is not allowed.

    Example:
        >>> dataset = open_dataset("my_dataset", group_by=r"^(patient\d+)_")
        >>> len(dataset.train), len(dataset.validation)
        (8, 4)
    """
    for name, path in (("train_list", train_list), ("val_list", val_list)):
        if path is not None:
            check_path(name, path)
    if group_by is not None:
        check_text("group_by", group_by)
    if val_fraction is not None:
        check_number("val_fraction", val_fraction, above=0, below=1)
    check_seed(seed)
    given: dict[Split, PathLike | None] = {"train": train_list, "validation": val_list}
    lists = {split: Path(path) for split, path in given.items() if path is not None}
    with errors_about(data):
        found = _with_splits(data, _read(data, masks, group_by, classes), lists)
        divided = splits.divide(found, val_fraction=val_fraction, seed=seed)
    source = Path(data) if isinstance(data, (str, os.PathLike)) else None
    return replace(divided, source=source)


def find_split(
    data: Dataset | DataSource,
    split: Split,
    *,
    masks: PathLike | None = None,
    classes: Sequence[str] | str | None = None,
    group_by: str | None = None,
) -> list[Pair]:
    """Find the pairs of a split that the data itself defines, without any random choice.

    Images without masks and masks without images, in any split, are logged as a warning.

    Args:
        data: A dataset, or data as in `open_dataset`.
        split: Name of the split.
        masks: As in `open_dataset`.
        classes: As in `open_dataset`.
        group_by: As in `open_dataset`.

    Returns:
        The pairs; none if the data does not name this split.

    Raises:
        DatasetError: The data has no pairs, or it is not clear which mask belongs to which image.

    Example:
        >>> [pair.name for pair in find_split("my_test_set", "test")]
        ['test0', 'test1']
    """
    found = _with_splits(data, _read(data, masks, group_by, classes), {})
    pairs = found.pairs.get(split, [])
    if pairs:
        for problem in found.unmatched:
            logger.warning("left out: %s", problem.line())
    return pairs


def find_pairs(
    data: Dataset | DataSource,
    *,
    names: Sequence[str] | None = None,
    masks: PathLike | None = None,
    classes: Sequence[str] | str | None = None,
    group_by: str | None = None,
) -> list[Pair]:
    """Find all pairs of a dataset, in any split.

    Args:
        data: A dataset, or data as in `open_dataset`.
        names: Names of the pairs to return, without extension, in this order; default: all pairs, sorted by name.
        masks: As in `open_dataset`.
        classes: As in `open_dataset`.
        group_by: As in `open_dataset`.

    Raises:
        DatasetError: An image has no mask, a mask has no image, or a listed name does not exist.

    Example:
        >>> len(find_pairs("my_dataset"))
        12
    """
    found = splits.distinct_names(_read(data, masks, group_by, classes))
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
    """Name the data in one word, without the folders above it."""
    if isinstance(data, (str, os.PathLike)):
        return Path(data).name or real_path(data).name
    return pluralize(sum(map(len, data.splits.values())) if isinstance(data, Dataset) else len(data), "pair")


def _read(
    data: Any, masks: PathLike | None, group_by: str | None, classes: Sequence[str] | str | None
) -> DiscoveredPairs:
    """Read the pairs in any layout, with their groups and only the chosen classes."""
    chosen = check_classes(classes)
    found = _read_all(data, masks, group_by)
    return found if isinstance(data, Dataset) and chosen is None else select_classes(found, chosen)


def _read_all(data: Any, masks: PathLike | None, group_by: str | None) -> DiscoveredPairs:
    """Read the pairs in any layout, with their groups."""
    is_path = isinstance(data, (str, os.PathLike))
    if is_path:
        check_path("data", data)  # an empty string would be the working directory
    if masks is not None:
        check_path("masks", masks)
    # os.path, unlike pathlib, answers for any string.
    if masks is not None and not (is_path and os.path.isdir(data)):  # noqa: PTH112
        raise OptionError(
            f"masks={os.fspath(masks)!r} needs a folder of images as data, not {str(data)[:80]!r}", option="masks"
        )
    if isinstance(data, Dataset):
        found = DiscoveredPairs({split: data.splits[split] for split in SPLITS}, data.layout, data.problems)
    elif not is_path:
        if not isinstance(data, Sequence):
            raise OptionError(
                f"data is {type(data).__name__}; pass a folder, a CSV or annotation file, or a list of pairs",
                option="data",
            )
        found = read_pairs(data)
    elif os.path.isdir(data):  # noqa: PTH112
        found = read_folder(Path(data), None if masks is None else Path(masks))
    elif Path(data).suffix.lower() in TABLE_SUFFIXES:
        if group_by in read_csv_columns(Path(data)):
            return read_csv(Path(data), group_column=group_by)
        found = read_csv(Path(data))
    elif Path(data).name == "dataset.json" and is_nnunet(Path(data).parent):
        found = read_nnunet(Path(data).parent)
    elif Path(data).suffix.lower() in ANNOTATION_SUFFIXES:
        found = read_annotation_file(Path(data), folder=Path(data).parent)
    elif os.path.isfile(data):  # noqa: PTH113
        known = ", ".join((*TABLE_SUFFIXES, *ANNOTATION_SUFFIXES))
        raise DatasetError(f"{data} is neither a folder nor a file named {known}; pass one of these")
    else:
        found = read_folder(Path(data), None if masks is None else Path(masks))
    return found if group_by is None else splits.with_groups(found, group_by)


def _with_splits(data: Dataset | DataSource, found: DiscoveredPairs, lists: dict[Split, Path]) -> DiscoveredPairs:
    """Divide pairs by the lists if there are any, otherwise by the splits that the data defines."""
    found = splits.distinct_names(found)
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        lists = lists or _lists_beside(Path(data), found)
        found = found if lists else splits.by_names(found)
    return splits.by_lists(found, lists) if lists else found


def _lists_beside(folder: Path, found: DiscoveredPairs) -> dict[Split, Path]:
    """Find train.txt, val.txt and test.txt in a folder whose subfolders do not define splits."""
    lists: dict[Split, Path] = {}
    if set(found.pairs) != {None}:
        return lists
    for path in sorted(folder.glob("*.txt")):
        split = split_of_word(path.stem)
        if split in lists:
            raise DatasetError(f"{lists[split]} and {path} both list the {split} split; keep one of them")
        if split is not None:
            lists[split] = path
    return lists
