"""LabelMe and VIA files, and images that an annotation file names as another machine has them."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condseg_sdk.cli import main
from condseg_sdk.data import Dataset, check_dataset, find_pairs, load_mask, open_dataset
from condseg_sdk.data.image_finder import ImageFinder, index_files
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import make_set, picture, region, save, write_json

TRIANGLE = [[3, 2], [20, 4], [12, 17]]


def coco(path: Path, names: list[str]) -> Path:
    """A COCO file of 30x20 images, each with a triangle."""
    flat = [value for point in TRIANGLE for value in point]
    images = [{"id": i, "file_name": name, "height": 20, "width": 30} for i, name in enumerate(names)]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "segmentation": [flat]} for i in range(len(names))]
    return write_json(path, {"images": images, "annotations": annotations})


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        save(folder / name, picture(name))


def labelme(path: Path, *shapes: dict[str, Any], **more: Any) -> Path:
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": f"{path.stem}.png",
        "imageData": None,
    }
    return write_json(path, {**content, "imageHeight": 20, "imageWidth": 30, **more})


def shape(kind: str | None, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "polyp", "points": points, "shape_type": kind, "group_id": None, **more}


def pair_names(dataset: Dataset) -> list[str]:
    return sorted(pair.name for pairs in dataset.splits.values() for pair in pairs)


def lines(dataset: Dataset, severity: str) -> list[str]:
    return [problem.line() for problem in dataset.problems if problem.severity == severity]


# Where images are


@pytest.mark.parametrize(
    ("written", "is_guess"),
    [
        (r"images\{}.png", False),
        (r".\images\{}.png", False),
        (r"C:\Users\me\set\images\{}.png", True),
        ("../../label-studio/data/media/upload/1/{}.png", True),
        ("/data/local-files/?d=set/images/{}.png", True),
        ("file:///home/me/set/{}.png", True),
        ("https://host.example/set/images/{}.png?v=1", True),
        ("3f2a9b1c-{}.png", True),
        ("upload/7/3f2a9b1c-{}.png", True),
        ("{}.tif", True),  # converted after it was annotated
    ],
)
def test_image_names_written_on_other_machines_are_found(tmp_path: Path, written: str, is_guess: bool) -> None:
    pictures(tmp_path / "images", "a.png", "b 1.png", "c (2).png")
    names = ["a", "b 1", "c (2)"]
    path = coco(tmp_path / "result.json", [written.format(name) for name in names])
    for dataset in (open_dataset(tmp_path), open_dataset(tmp_path / "images", masks=path), open_dataset(path)):
        assert pair_names(dataset) == names
        assert lines(dataset, "error") == []
        guessed = [line for line in lines(dataset, "warning") if "found by file name" in line]
        assert len(guessed) == is_guess
        assert check_dataset(dataset).errors == ()


def test_quoted_names_and_names_changed_by_label_studio_are_found(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "b 1.png", "c (2).png", "größe.png")
    path = coco(
        tmp_path / "result.json", ["images/b%201.png", "upload/1/0f0f0f0f-c_2.png", "images/gr%C3%B6%C3%9Fe.png"]
    )
    assert pair_names(open_dataset(path)) == ["b 1", "c (2)", "größe"]
    pictures(tmp_path / "images", "100%25.png", "100%.png")  # a name as it stands comes first
    path = coco(tmp_path / "result.json", ["images/100%25.png", "images/b 1.png"])
    assert pair_names(open_dataset(path)) == ["100%25", "b 1"]


def test_among_files_with_one_name_the_folders_decide(tmp_path: Path) -> None:
    for folder in ("one/x", "two/x"):
        pictures(tmp_path / "images" / folder, "a.png", "b.png")
    path = coco(tmp_path / "set.json", [r"D:\set\one\x\a.png", r"D:\set\two\x\a.png"])
    dataset = open_dataset(path)
    assert pair_names(dataset) == ["one/x/a", "two/x/a"]
    path = coco(tmp_path / "set.json", ["elsewhere/a.png", "images/one/x/a.png", "images/one/x/b.png"])
    dataset = open_dataset(path)
    assert pair_names(dataset) == ["a", "b"]
    (error,) = lines(dataset, "error")
    assert error.startswith("1 image with a name that several files share; include its folders: elsewhere/a.png (")


def test_images_that_a_coco_file_does_not_list_are_reported(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.png", "b.png", "extra.png")
    path = coco(tmp_path / "set.json", ["a.png", "b.png"])
    expected = "1 image missing from the annotations and not used"
    for dataset in (open_dataset(tmp_path), open_dataset(tmp_path / "images", masks=path)):
        assert any(line.startswith(expected) and "extra.png" in line for line in lines(dataset, "warning"))
    assert lines(open_dataset(path), "warning") == []  # what else is around a file is none of its business


@pytest.mark.parametrize("name", ["", "/", "..", "a\0b", "x" * 4000, "?d=", "C:\\", "\ud800", "http://[", "%zz%", "//"])
def test_any_string_can_be_the_name_of_a_missing_image(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "a.png")
    finder = ImageFinder([tmp_path], lambda: index_files([tmp_path / "a.png"]))
    finder.prefer([name])
    assert finder.find(name) is None


# LabelMe


def test_labelme_files_beside_their_images_are_read(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{name}.png" for name in "abcdef"))
    painted = np.zeros((4, 5), np.uint8)
    painted[1:, 2:] = 1
    buffer = io.BytesIO()
    Image.fromarray(painted).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    labelme(tmp_path / "a.json", shape("polygon", TRIANGLE))
    labelme(
        tmp_path / "b.json",
        shape("rectangle", [[12, 9], [4, 5]]),
        shape("rectangle", [[20, 1], [25, 1], [25, 3], [20, 3]]),
    )
    labelme(tmp_path / "c.json", shape("circle", [[14, 10], [14, 4]]))
    labelme(tmp_path / "d.json", shape("mask", [[25, 17], [29, 20]], mask=encoded))
    labelme(tmp_path / "e.json", shape("point", [[1, 1]]), shape(None, [[0, 0], [9, 0], [9, 9], [0, 9]]))
    labelme(tmp_path / "f.json")
    dataset = open_dataset(tmp_path)
    masks = {pair.name: load_mask(pair.mask) for part in dataset.splits.values() for pair in part}
    sums = {name: int(mask.sum()) for name, mask in masks.items()}
    expected = {"b": 8 * 4 + 5 * 2, "d": 2 * 3, "e": 81, "f": 0}  # the lower rows of d's piece are outside
    assert {name: sums[name] for name in expected} == expected
    assert masks["d"][18:20, 27:30].all()
    assert abs(sums["a"] - 122) < 8  # half of |17 * 15 - 9 * 2|
    assert abs(sums["c"] - math.pi * 36) < 8
    assert lines(dataset, "error") == []
    assert any(line.startswith("1 shape of LabelMe without an area, left out") for line in lines(dataset, "warning"))
    assert dataset.layout.startswith("LabelMe: a.json, b.json, c.json and 3 more")
    assert check_dataset(dataset).mask_kinds == {"LabelMe shapes": 6}
    assert dataset.left_out == ""


def test_labelme_files_in_another_folder_are_read(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.png", "b.png", "c.png")
    for name in "abc":
        labelme(tmp_path / "json" / f"{name}.json", shape("polygon", TRIANGLE), imagePath=f"..\\images\\{name}.png")
    for dataset in (open_dataset(tmp_path), open_dataset(tmp_path / "images", masks=tmp_path / "json")):
        assert pair_names(dataset) == [*"abc"]
        assert lines(dataset, "error") == lines(dataset, "warning") == []
    for name in "abc":  # renamed since
        (tmp_path / "images" / f"{name}.png").rename(tmp_path / "json" / f"{name}.png")
        labelme(tmp_path / "json" / f"{name}.json", shape("polygon", TRIANGLE), imagePath="IMG_0001.jpg")
    dataset = open_dataset(tmp_path / "json")
    assert pair_names(dataset) == [*"abc"]
    assert lines(dataset, "warning")[0].startswith("3 images found by file name")


def test_images_without_a_labelme_file_are_an_error_with_remedies_that_work(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{name}.png" for name in "abcd"))
    labelme(tmp_path / "a.json", shape("polygon", TRIANGLE))
    message = (
        "LabelMe: a.json: 1 pair: at least one to train on and one to hold out are needed; 3 images without an ann"
    )
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)
    labelme(tmp_path / "b.json", shape("polygon", TRIANGLE))
    (error,) = lines(open_dataset(tmp_path), "error")
    assert "2 images without an annotation file; annotate it (a file without shapes says" in error
    labelme(tmp_path / "c.json")
    (tmp_path / "d.png").unlink()
    assert lines(open_dataset(tmp_path), "error") == []


def test_a_single_labelme_file_recommends_its_folder(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    path = labelme(tmp_path / "a.json", shape("polygon", TRIANGLE))
    labelme(tmp_path / "b.json", shape("polygon", TRIANGLE))
    with pytest.raises(
        DatasetError, match=r"a\.json, which describes one image \(pass its folder for all of them\): 1 pair"
    ):
        open_dataset(path)
    assert pair_names(open_dataset(path.parent)) == ["a", "b"]
    assert [pair.name for pair in find_pairs(path)] == ["a"]  # one is enough to measure on


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shapes": 3}, "'shapes' must be a list"),
        ({"shapes": [3]}, "shape 0 has no 'points'"),
        ({"shapes": [shape("polygon", 3)]}, "shape 0 has no 'points'"),
        ({"shapes": [shape("polygon", [[1, "2"], [3, 4], [5, 6]])]}, "shape 0 has no 'points'"),
        ({"shapes": [shape("polygon", [[1, 1e300], [3, 4], [5, 6]])]}, "shape 0 has no 'points'"),
        ({"shapes": [shape("polygon", [[1, 2], [3, 4]])]}, "shape 0 is of the type 'polygon' with 2 points"),
        (
            {"shapes": [shape("spiral\n", [[1, 2], [3, 4], [4, 4]])]},
            r"of the type 'spiral\\n' with 3 points; in LabelMe",
        ),
        ({"shapes": [{**shape(None, TRIANGLE), "shape_type": ["x"]}]}, r"of the type \['x'\]"),
        ({"shapes": [shape("mask", [[1, 2], [3, 4]], mask="AAAA")]}, "has no readable mask"),
        ({"shapes": [shape("mask", [[1, 2], [3, 4]], mask=[1])]}, "has no readable mask"),
        (
            {"shapes": [shape("mask", [[1, 2], [3, 4]], mask="AAAA")], "imageHeight": 90_000, "imageWidth": 90_000},
            "larger than",
        ),
        ({"imageHeight": "20"}, "imageHeight and imageWidth must be numbers of pixels"),
        ({"imageHeight": 0}, "imageHeight and imageWidth must be numbers of pixels"),
        ({"imagePath": 3}, "'imagePath' a string"),
    ],
)
def test_a_damaged_labelme_file_is_one_error_of_the_dataset(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    pictures(tmp_path, *(f"{name}.png" for name in "abc"))
    labelme(tmp_path / "a.json", shape("polygon", TRIANGLE), **content)
    with pytest.raises(DatasetError, match=rf"a\.json.*{message}"):
        open_dataset(tmp_path / "a.json")
    for name in "bc":
        labelme(tmp_path / f"{name}.json", shape("polygon", TRIANGLE))
    dataset = open_dataset(tmp_path)
    assert pair_names(dataset) == ["b", "c"]
    assert lines(dataset, "error")[0].startswith("1 annotation file that cannot be used; export it again: ")


# VIA


def via(*entries: tuple[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        f"{name}123": {
            "filename": name,
            "size": 123,
            "regions": [{"shape_attributes": attributes, "region_attributes": {}} for attributes in shapes],
            "file_attributes": {},
        }
        for name, shapes in entries
    }


VIA_TRIANGLE = {"name": "polygon", "all_points_x": [3, 20, 12], "all_points_y": [2, 4, 17]}


@pytest.mark.parametrize("is_project", [False, True])
def test_via_shapes_are_drawn(tmp_path: Path, is_project: bool) -> None:
    pictures(tmp_path, *(f"{name}.png" for name in "abcde"))
    content = via(
        ("a.png", [VIA_TRIANGLE]),
        ("b.png", [{"name": "rect", "x": 4, "y": 5, "width": 8, "height": 4}]),
        ("c.png", [{"name": "circle", "cx": 14, "cy": 10, "r": 6}, {"name": "point", "cx": 1, "cy": 1}]),
        ("d.png", [{"name": "ellipse", "cx": 14, "cy": 10, "rx": 3, "ry": 9, "theta": math.pi / 2}]),
        ("e.png", []),
    )
    project = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}
    write_json(tmp_path / "via.json", project if is_project else content)
    dataset = open_dataset(tmp_path)
    masks = {pair.name: load_mask(pair.mask) for part in dataset.splits.values() for pair in part}
    sums = {name: int(mask.sum()) for name, mask in masks.items()}
    assert (sums["b"], sums["e"]) == (32, 0)
    assert abs(sums["a"] - 122) < 8
    assert abs(sums["c"] - math.pi * 36) < 8
    assert abs(sums["d"] - math.pi * 27) < 8
    assert masks["d"][10, 6:22].all()  # turned by a right angle: wide, not high
    assert lines(dataset, "error") == []
    assert any("without an area, left out" in line and "point in c.png" in line for line in lines(dataset, "warning"))
    assert pair_names(open_dataset(tmp_path / "via.json")) == [*"abcde"]


def test_numbered_regions_of_via_1_are_read(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    content = via(("a.png", [VIA_TRIANGLE]), ("b.png", [VIA_TRIANGLE]))
    for entry in content.values():
        entry["regions"] = {str(i): region for i, region in enumerate(entry["regions"])}
    write_json(tmp_path / "via.json", content)
    assert pair_names(open_dataset(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    "damage",
    [
        {"regions": 3},
        {"regions": [3]},
        {"regions": [{"shape_attributes": []}]},
        {"regions": [{"shape_attributes": {"name": ["rect"]}}]},
        {"regions": [{"shape_attributes": {"name": "rect", "x": "1", "y": 2, "width": 3, "height": 4}}]},
        {"regions": [{"shape_attributes": {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}}]},
        {
            "regions": [
                {"shape_attributes": {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, None]}}
            ]
        },
        {"filename": 3},
        {"filename": ""},
    ],
)
def test_a_damaged_via_entry_is_left_out_and_reported(tmp_path: Path, damage: dict[str, Any]) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png")
    content = via(*((name, [VIA_TRIANGLE]) for name in ("a.png", "b.png", "c.png")))
    content["c.png123"] |= damage
    write_json(tmp_path / "via.json", content)
    dataset = open_dataset(tmp_path)
    assert pair_names(dataset) == ["a", "b"]
    assert lines(dataset, "error")[0].startswith(f"1 entry of {tmp_path / 'via.json'} that cannot be used")


# The command


def test_the_check_reports_a_damaged_entry_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "images", *(f"{name}.png" for name in "abcd"))
    path = coco(tmp_path / "result.json", [rf"images\{name}.png" for name in "abcd"])
    content = json.loads(path.read_text())
    content["annotations"][2]["segmentation"] = [[1, 2, "x"]]
    write_json(path, content)
    for arguments in ([str(tmp_path)], [str(tmp_path / "images"), "--masks", str(path)]):
        assert main(["finetune", *arguments, "--check"]) != 0
        out = capsys.readouterr().out
        assert "error    1 pair with a file that cannot be used" in out
        assert f"{path} (regions of images\\c.png): a polygon needs at least three points" in out


def test_unknown_xml_and_json_get_a_remedy_that_works(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "annotations.xml").write_text("<annotations/>")
    with pytest.raises(
        DatasetError,
        match=r"annotations\.xml is in no format that is read \(COCO, LabelMe, VIA, YOLO, CVAT or GeoJSON\); export",
    ):
        open_dataset(tmp_path)
    coco(tmp_path / "set.json", ["a.png", "b.png"])  # exported as COCO
    assert pair_names(open_dataset(tmp_path)) == ["a", "b"]


def test_a_table_is_recommended_only_if_it_can_be_read(tmp_path: Path) -> None:
    make_set(tmp_path, "abc", "x", "y")
    for name in "abc":
        save(tmp_path / "y" / f"{name}{name}.png", region())
        (tmp_path / "y" / f"{name}.png").unlink()
    table = tmp_path / "set.csv"
    table.write_text("patient,age\n1,2\n")
    with pytest.raises(DatasetError, match=r"no masks were recognized.*: put them into a folder named masks/"):
        open_dataset(tmp_path)
    table.write_text("image,mask\n" + "".join(f"x/{name}.png,y/{name}{name}.png\n" for name in "abc"))
    with pytest.raises(DatasetError, match=r"set\.csv lists them: pass that file instead of the folder"):
        open_dataset(tmp_path)
    assert pair_names(open_dataset(table)) == [*"abc"]
