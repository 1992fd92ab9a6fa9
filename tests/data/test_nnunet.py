"""Datasets of nnU-Net, as its documentation/dataset_format.md describes them: 2D images, names of classes, NIfTI refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import open_dataset
from condseg_sdk.data import find_pairs, load_mask
from condseg_sdk.errors import DatasetError

LABELS = {"background": 0, "polyp": 1, "tool": 2}


def make(folder: Path, *, cases: int = 6, labels: Any = None, ending: str = ".png", **others: Any) -> Path:
    content = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": labels or LABELS, "file_ending": ending}
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        values = np.zeros((30, 40), np.uint8)
        values[5:10, 5:15], values[20:25, 30:35] = 1, 2
        Image.new("RGB", (40, 30), (number, 60, 50)).save(folder / f"imagesTr/case_{number:03d}_0000.png")
        Image.fromarray(values).save(folder / f"labelsTr/case_{number:03d}.png")
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": cases, **others}))
    return folder


def areas(data: Path, **options: Any) -> set[int]:
    return {int(load_mask(pair.mask).sum()) for pair in find_pairs(data, **options)}


def test_images_and_labels_are_paired_and_all_classes_count(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path))
    assert {pair.name for pair in (*dataset.train, *dataset.validation)} == {f"case_{n:03d}" for n in range(6)}
    assert areas(tmp_path) == {75}
    assert areas(tmp_path / "dataset.json") == {75}
    assert [p.line() for p in dataset.problems] == [
        "2 classes, all of which are foreground; choose with classes= (--classes) if some are not: polyp, tool"
    ]


def test_classes_choose_values_and_unknown_names_list_those_there_are(tmp_path: Path) -> None:
    make(tmp_path)
    assert areas(tmp_path, classes=["polyp"]) == {50}
    assert areas(tmp_path, classes=["TOOL"]) == {25}
    assert not [p for p in open_dataset(tmp_path, classes=["tool"]).problems if "classes" in p.message]
    with pytest.raises(DatasetError, match="no region is of the class 'lesion'; the classes are polyp, tool"):
        open_dataset(tmp_path, classes=["lesion"])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({"background": 0, "everything": [1, 2], "tool": 2}, 75), ({"0": "background", "1": "polyp", "2": "tool"}, 50)],
    ids=["regions of several values", "version 1"],
)
def test_other_ways_to_write_labels(labels: Any, expected: int, tmp_path: Path) -> None:
    make(tmp_path, labels=labels)
    assert areas(tmp_path, classes=["everything" if expected == 75 else "polyp"]) == {expected}


def test_pixels_to_ignore_are_background_with_a_warning(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, labels={"background": 0, "polyp": 1, "ignore": 2}))
    assert areas(tmp_path) == {50}
    assert "pixels to ignore, which are read as background" in dataset.problems[0].line()


def test_the_test_images_are_the_test_split_where_they_have_labels(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path / "more", cases=2)
    for source, target in (("imagesTr", "imagesTs"), ("labelsTr", "labelsTs")):
        (tmp_path / "more" / source).rename(tmp_path / target)
    assert len(open_dataset(tmp_path).test) == 2


def test_volumes_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'\.nii\.gz' are volumes, not 2D images; save their slices as PNG"):
        open_dataset(make(tmp_path, ending=".nii.gz"))


def test_files_of_channels_are_refused_with_what_to_do(tmp_path: Path) -> None:
    make(tmp_path)
    Image.new("L", (40, 30)).save(tmp_path / "imagesTr/case_002_0001.png")
    with pytest.raises(DatasetError, match="case_002_0001.png are channels of one image; save them as one RGB image"):
        open_dataset(tmp_path)


def test_missing_labels_and_images_are_errors(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "labelsTr/case_001.png").unlink()
    (tmp_path / "imagesTr/case_004_0000.png").unlink()
    lines = [problem.line() for problem in open_dataset(tmp_path).problems if problem.severity == "error"]
    assert any("1 image without a label" in line and "case_001_0000" in line for line in lines)
    assert any("1 label without an image" in line and "case_004" in line for line in lines)


@pytest.mark.parametrize("labels", [{"background": 0}, {"polyp": "one", "tool": 1}, {"polyp": -1}, [1, 2]])
def test_damaged_labels_are_refused_in_one_line(labels: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        open_dataset(make(tmp_path, labels=labels))


def test_a_color_image_is_no_label(tmp_path: Path) -> None:
    make(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "labelsTr/case_000.png")
    with pytest.raises(DatasetError, match="is a color image: the label of a class is a gray level"):
        areas(tmp_path)


def test_a_damaged_dataset_json_is_named(tmp_path: Path) -> None:
    (make(tmp_path) / "dataset.json").write_text('{"labels": {"polyp": 1')
    with pytest.raises(DatasetError, match=r"dataset\.json is not JSON.*export it again"):
        open_dataset(tmp_path)
