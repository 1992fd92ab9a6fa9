"""CVAT XML: polygons, masks and ellipses of "CVAT for images 1.1", as docs.cvat.ai describes it ("XML annotation format")."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import open_dataset
from condseg_sdk.data import find_pairs, load_mask
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import make_set

SIZE = (50, 70)  # (height, width)
POLYGON = (
    '<polygon label="polyp" source="manual" occluded="0" points="10.0,5.0;20.0,5.0;20.0,15.0;10.0,15.0" z_order="0"/>'
)
MASK = '<mask label="tool" occluded="0" rle="1, 2, 3, 3" left="30" top="40" width="3" height="3" z_order="0"/>'


def document(*images: str, meta: str = "<meta><task><name>t</name></task></meta>") -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{"".join(images)}</annotations>'


def image(name: str, shapes: str = "", size: tuple[int, int] = SIZE) -> str:
    return f'<image id="0" name="{name}" width="{size[1]}" height="{size[0]}">{shapes}</image>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", SIZE[::-1], (90, 60, 50)).save(tmp_path / "images" / name)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    (folder / "annotations.xml").write_text(text, encoding="utf-8")
    return folder


def test_polygons_and_masks_are_drawn_where_cvat_draws_them(folder: Path) -> None:
    pairs = find_pairs(write(folder, document(image("a.png", POLYGON + MASK), image("b.png"))))
    expected = np.zeros(SIZE, bool)
    expected[5:15, 10:20] = True
    expected[40:43, 30:33] = np.array([[0, 1, 1], [0, 0, 0], [1, 1, 1]], bool)  # row by row, background first
    np.testing.assert_array_equal(load_mask(pairs[0].mask), expected)
    assert not load_mask(pairs[1].mask).any()


def test_an_ellipse_is_drawn(folder: Path) -> None:
    ellipse = '<ellipse label="polyp" cx="35" cy="25" rx="20" ry="10" rotation="0"/>'
    (pair, _) = find_pairs(write(folder, document(image("a.png", ellipse), image("b.png"))))
    assert load_mask(pair.mask).sum() == pytest.approx(np.pi * 200, rel=0.02)


def test_classes_choose_what_counts(folder: Path) -> None:
    write(folder, document(image("a.png", POLYGON + MASK), image("b.png", MASK)))
    pairs = find_pairs(folder, classes=["Polyp"])
    assert [int(load_mask(pair.mask).sum()) for pair in pairs] == [100, 0]
    with pytest.raises(DatasetError, match=r"no region is of the class 'lesion'; the classes are tool, polyp"):
        find_pairs(folder, classes="lesion")


def test_boxes_and_damaged_shapes_are_errors_and_lines_are_left_out(folder: Path) -> None:
    shapes = '<box label="p" xtl="1" ytl="1" xbr="5" ybr="5"/><polyline label="p" points="1,1;2,2"/>'
    shapes += '<polygon label="p" points="1,1;2"/><mask label="p" rle="1,2" left="0" top="0" width="9" height="9"/>'
    dataset = open_dataset(write(folder, document(image("a.png", shapes + POLYGON), image("b.png", POLYGON))))
    lines = [f"{problem.severity}: {problem.line()}" for problem in dataset.problems]
    assert any(line.startswith("error: 2 shapes of") and "draw it again in CVAT" in line for line in lines)
    assert any(line.startswith("error: 1 box of") and "draw polygons or masks" in line for line in lines)
    assert any(line.startswith("warning: 1 shape of") and "without an area" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><version>1.1</version>", r"annotations\.xml is not XML .*CVAT for images 1\.1"),
        (document('<track id="0" label="polyp"/>'), r"is 'CVAT for video', whose shapes belong to tracks; export"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + document(image("a.png")), "document type definition, which is not read"),
        (document(), "lists no images"),
        (document(image("a.png", size=(0, 5))), "1 image of .* that cannot be used"),
    ],
)
def test_other_files_are_refused_with_what_to_do(text: str, message: str, folder: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(write(folder, text) / "annotations.xml")


def test_another_xml_file_is_not_taken_for_cvat(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"annotations\.xml is in no format that is read"):
        open_dataset(write(folder, "<annotation><object/></annotation>"))


def test_names_with_folders_are_found(tmp_path: Path) -> None:
    make_set(tmp_path / "set", ["p1_a", "p1_b"])
    names = sorted(path.name for path in (tmp_path / "set/images").iterdir())
    with Image.open(tmp_path / "set/images" / names[0]) as picture:
        size = (picture.height, picture.width)
    text = document(*(image(f"upload/{name}", size=size) for name in names))
    (tmp_path / "annotations.xml").write_text(text)
    assert len(find_pairs(tmp_path / "set/images", masks=tmp_path / "annotations.xml")) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_and_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "annotations.xml")
    with pytest.raises(DatasetError, match="is not a regular file"):
        open_dataset(tmp_path / "annotations.xml")
