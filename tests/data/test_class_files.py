"""Masks that are files by class: a folder for each class, or the class at the end of the name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import open_dataset
from condseg_sdk.data import find_pairs, load_mask
from condseg_sdk.errors import DatasetError, OptionError

PATTERNS = ["masks/{label}/{name}.png", "masks/{name}_{label}.png", "train/masks/{label}/{name}.png"]


def save(path: Path, rows: slice | None = None) -> None:
    mask = np.zeros((20, 30), np.uint8)
    if rows is not None:
        mask[rows, 3:9] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def make(folder: Path, pattern: str, names: tuple[str, ...] = ("a_1", "a_2", "b")) -> Path:
    for name in names:
        image = folder / ("train/images" if pattern.startswith("train") else "images") / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (90, 60, 50)).save(image)
        save(folder / pattern.format(label="polyp", name=name), slice(0, 5))
        if name != "b":
            save(folder / pattern.format(label="tool", name=name), slice(10, 20))
    return folder


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_union_of_all_classes_is_the_mask_and_classes_choose(pattern: str, tmp_path: Path) -> None:
    pairs = find_pairs(make(tmp_path, pattern))
    assert [int(load_mask(pair.mask).sum()) for pair in pairs] == [90, 90, 30]
    dataset = open_dataset(tmp_path)
    assert "2 classes, all of which are foreground" in dataset.problems[0].line()
    chosen = find_pairs(tmp_path, classes=["tool"])
    assert [int(load_mask(pair.mask).sum()) for pair in chosen] == [60, 60, 0]
    with pytest.raises(DatasetError, match="no region is of the class 'stent'; the classes are polyp, tool"):
        find_pairs(tmp_path, classes="stent")


def test_an_image_without_a_mask_of_any_class_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, PATTERNS[0])
    Image.new("RGB", (30, 20)).save(tmp_path / "images/c.png")
    save(tmp_path / "masks/tool/d.png")
    lines = [problem.line() for problem in open_dataset(tmp_path).problems if problem.severity == "error"]
    assert any("1 image without a mask of any class" in line and "c.png" in line for line in lines)
    assert any("1 mask without an image of the same name" in line and "d.png" in line for line in lines)


@pytest.mark.parametrize("labels", [("reader1", "reader2"), ("1", "2"), ("expert A", "expert B")])
def test_folders_of_several_readers_are_not_classes(labels: tuple[str, str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(tmp_path / f"images/{name}.png")
        for label in labels:
            save(tmp_path / f"masks/{label}/{name}.png", slice(0, 5))
    with pytest.raises(DatasetError):
        find_pairs(tmp_path)


def test_folders_of_patients_are_not_classes(tmp_path: Path) -> None:
    for name in ("p1a", "p1b", "p2a", "p2b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/patient{name[1]}/{name}.png", slice(0, 5))
    assert all(isinstance(pair.mask, Path) for pair in find_pairs(tmp_path))


@pytest.mark.parametrize("classes", [[], [3], [" "], 7])
def test_classes_that_are_no_names_are_refused(classes: object, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"classes=.* must be a list of names, such as \['polyp'\]"):
        find_pairs(make(tmp_path, PATTERNS[0]), classes=classes)


def test_data_without_names_of_classes_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/{name}.png", slice(0, 5))
    with pytest.raises(DatasetError, match="the data names no classes; leave classes= "):
        find_pairs(tmp_path, classes=["polyp"])
