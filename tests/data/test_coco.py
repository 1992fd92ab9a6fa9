"""COCO files: polygons and run lengths against masks worked out by hand, where images are found, mistakes."""

from __future__ import annotations

import json
import re
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from condseg_sdk.data import (
    Dataset,
    RegionMask,
    check_dataset,
    find_pairs,
    load_mask,
    load_pair,
    open_dataset,
)
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import picture, save

SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]  # columns 1 to 4, rows 1 to 3
# By columns: 000 110 100 001.
CODED = [[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
COUNTS = [3, 2, 1, 1, 4, 1]
STRING = "321O30"  # the same counts, from the fourth on less the one two before it, 5 bits a character


def draw(size: tuple[int, int], *regions: Any) -> NDArray[np.bool_]:
    return load_mask(RegionMask(Path("set.json"), "a.png", size, regions))


def coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "polyp"}], **more}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def images(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Image files of 7x5 pixels and their entries, ids from 1."""
    for name in names:
        save(folder / name, picture(name, (5, 7)))
    return [{"id": i, "file_name": name, "height": 5, "width": 7} for i, name in enumerate(names, 1)]


def annotation(image: int, region: Any, **more: Any) -> dict[str, Any]:
    return {"id": 10 * image, "image_id": image, "category_id": 1, "segmentation": region, **more}


def all_pairs(dataset: Dataset) -> list[str]:
    return sorted(pair.name for pairs in dataset.splits.values() for pair in pairs)


# Drawing


def test_a_polygon_covers_the_pixels_within_it() -> None:
    expected = np.zeros((5, 7), bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(draw((5, 7), [SQUARE]), expected)
    # Two polygons of one annotation, and two annotations, are one mask.
    expected[0, 6] = True
    corner = [6, 0, 7, 0, 7, 1, 6, 1]
    np.testing.assert_array_equal(draw((5, 7), [SQUARE, corner]), expected)
    np.testing.assert_array_equal(draw((5, 7), [SQUARE], [corner]), expected)


@pytest.mark.parametrize("counts", [COUNTS, STRING])
def test_run_lengths_run_down_the_columns(counts: Any) -> None:
    region = {"size": [3, 4], "counts": counts}
    assert draw((3, 4), region).astype(int).tolist() == CODED


def test_an_image_without_regions_has_an_empty_mask() -> None:
    assert draw((3, 4)).tolist() == [[False] * 4] * 3


@given(mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=60, deadline=None)
def test_run_lengths_reproduce_any_mask(mask: NDArray[np.bool_]) -> None:
    """Counted here by the definition: runs down the columns, of zeros first."""
    flat = [False, *mask.ravel(order="F").tolist()]
    counts = [0]
    for before, value in pairwise(flat):
        if value != before:
            counts.append(0)
        counts[-1] += 1
    np.testing.assert_array_equal(draw(mask.shape, {"size": list(mask.shape), "counts": counts}), mask)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ([[1, 1, 2, 2]], "at least three points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "at least three points"),
        ([[1, 1, 2, float("nan"), 3, 3]], "finite numbers"),
        ([[1, 1, 2, "2", 3, 3]], "finite numbers"),
        ([[0, 0, 100, 0, 100, 100]], "far outside of the image"),
        ([[0, 0, 1e12, 0, 1, 1]], "far outside of the image"),
        ([], "no usable 'segmentation'"),
        ("abc", "no usable 'segmentation'"),
        ({"size": [5, 6], "counts": [30]}, r"size \[5, 6\] in an image of \[5, 7\]"),
        ({"counts": [35]}, "size None"),
        ({"size": [5, 7], "counts": [30]}, "sum to its pixels"),
        ({"size": [5, 7], "counts": [40, -5]}, "whole numbers"),
        ({"size": [5, 7], "counts": "zzzzzz"}, "is damaged"),
        ({"size": [5, 7], "counts": "é"}, "is damaged"),
        ({"size": [5, 7], "counts": None}, "'counts' a list or a string"),
    ],
)
def test_damaged_regions_name_file_and_image(region: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"set\.json \(regions of a\.png\).*{message}"):
        draw((5, 7), region)


# Files


def test_a_coco_file_with_polygons_run_lengths_and_an_image_without_a_region_is_read(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png", "c.png")
    run_length = {"size": [5, 7], "counts": [0, 5, 30]}
    path = write(tmp_path / "set.json", coco(entries, [annotation(1, [SQUARE]), annotation(2, run_length, iscrowd=1)]))
    dataset = open_dataset(path)
    masks = {pair.name: load_pair(pair)[1] for part in dataset.splits.values() for pair in part}
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 12, "b": 5, "c": 0}
    assert masks["b"][:, 0].all()
    assert dataset.problems == ()
    assert "COCO: set.json" in dataset.layout


@pytest.mark.parametrize(
    ("json_path", "folder"),
    [
        ("set.json", "images"),
        ("annotations/set.json", "."),
        ("annotations/set.json", "images"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_images_are_found_in_the_usual_folders(tmp_path: Path, json_path: str, folder: str) -> None:
    entries = images(tmp_path / folder, "a.png", "b.png")
    path = write(tmp_path / json_path, coco(entries, [annotation(1, [SQUARE])]))
    assert all_pairs(open_dataset(path)) == ["a", "b"]
    # The folder says as much as the file, and a folder of images may be given with the file as its masks.
    assert all_pairs(open_dataset(tmp_path)) == ["a", "b"]
    assert all_pairs(open_dataset(tmp_path / folder, masks=path)) == ["a", "b"]


@pytest.mark.parametrize("place", ["{part}/_annotations.coco.json", "annotations/instances_{part}2017.json"])
def test_a_coco_file_for_each_split_divides_the_dataset(tmp_path: Path, place: str) -> None:
    for part, names in (("train", ("a.png", "b.png")), ("valid", ("c.png",)), ("test", ("a.png",))):
        folder = tmp_path / (part if place.startswith("{") else f"{part}2017")
        entries = images(folder, *names)
        write(tmp_path / place.format(part=part), coco(entries, [annotation(1, [SQUARE])]))
    dataset = open_dataset(tmp_path)
    assert [len(part) for part in dataset.splits.values()] == [2, 1, 1]
    assert dataset.test[0].name == "test/a"
    assert dataset.problems == ()
    assert len(find_pairs(tmp_path)) == 4


def test_a_polygon_without_the_list_around_it_is_read(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png")
    path = write(tmp_path / "set.json", coco(entries, [annotation(i, SQUARE) for i in (1, 2)]))
    assert {load_mask(pair.mask).sum() for pair in open_dataset(path).train} == {12}


def test_several_categories_are_foreground_and_reported(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png")
    annotations = [annotation(1, [SQUARE]), annotation(2, [SQUARE], category_id=2)]
    path = write(tmp_path / "set.json", coco(entries, annotations))
    unknown, problem = open_dataset(path).problems
    assert problem.severity == unknown.severity == "warning"
    assert unknown.line().startswith("1 category id used in set.json and not listed there")
    assert problem.message.startswith("2 classes, all of which are foreground; choose with classes= (--classes)")
    assert problem.files == ("2", "polyp")
    assert [load_mask(pair.mask).any() for pair in find_pairs(path, classes=["polyp"])] == [True, False]
    assert [load_mask(pair.mask).any() for pair in find_pairs(path, classes="2")] == [False, True]


def test_missing_and_repeated_images_are_reported(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "c.png").unlink()
    entries.append({**entries[0], "id": 4})
    path = write(tmp_path / "set.json", coco(entries, [annotation(1, [SQUARE])]))
    again, missing = open_dataset(path).problems
    assert again.message.startswith("1 image described twice in the annotations")
    assert again.files == (str(tmp_path / "a.png"),)
    assert missing.message.startswith("1 image of the annotations that cannot be found")
    assert missing.files == (str(tmp_path / "c.png"),)


ENTRY = {"id": 1, "file_name": "a.png", "height": 5, "width": 7}
OTHER = {**ENTRY, "id": 2, "file_name": "b.png"}
GOOD = [ENTRY, OTHER]


def complaint(path: Path) -> str:
    """The first error of a set, wherever it is said."""
    try:
        return next(p.line() for p in check_dataset(open_dataset(path)).problems if p.severity == "error")
    except DatasetError as error:
        return str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"images": NaN, "annotations": []}', "NaN is not a finite number"),
        ([], "is not an annotation file of COCO, LabelMe, VIA, YOLO, CVAT or GeoJSON"),
        ({"images": {}, "annotations": []}, "not a COCO file"),
        ({"images": 3, "annotations": None}, "not a COCO file"),
        (coco([], []), "lists no images"),
        (coco([{"id": 1}], []), "1 image of .* without a valid id or file_name"),
        (coco([[1], None, "x", *GOOD], []), "3 images of .* without a valid id or file_name"),
        (coco([{**ENTRY, "id": [1]}, OTHER], []), "without a valid id"),
        (coco([{**ENTRY, "id": True}, OTHER], []), "without a valid id"),
        (coco([{**ENTRY, "file_name": 7}, OTHER], []), "without a valid id or file_name"),
        (coco([{**ENTRY, "file_name": " "}, OTHER], []), "without a valid id or file_name"),
        (coco([{**ENTRY, "height": 0}], []), "without a size in pixels; export it again: a.png is 7x0"),
        (coco([{**ENTRY, "height": "5"}], []), "without a size in pixels"),
        (coco([{**ENTRY, "height": 5.5}], []), "without a size in pixels"),
        (
            coco([ENTRY, {**OTHER, "id": 1}, {**OTHER, "id": 3}], []),
            "the id of another one; ids must differ: id 1",
        ),
        (
            coco(GOOD, [annotation(9, [SQUARE])]),
            "for an image that is not in 'images'; export it again: entry 0 for image 9",
        ),
        (coco(GOOD, ["x"]), "for an image that is not in 'images'"),
        (coco(GOOD, [{"image_id": [1]}]), "for an image that is not in 'images'"),
        (
            coco(GOOD, [annotation(1, [], bbox=[1, 2, 3, 4])]),
            "1 annotation of .* with a box but no outline; .* instead of boxes: a.png",
        ),
        (coco(GOOD, [annotation(1, [])]), "with an empty segmentation"),
        (coco(GOOD, []), "has no annotations, only images"),
        (coco([{**ENTRY, "file_name": "z.png"}], []), "none of its images, such as z.png, was found"),
        (coco([{**ENTRY, "file_name": "z" * 5000}], []), "none of its images, such as zzz"),
        (coco([{**ENTRY, "file_name": "z\0.png"}], []), r"none of its images, such as z\\x00.png, was found"),
        (
            coco([{**ENTRY, "height": 500, "width": 700}, OTHER], [annotation(1, {"size": 3, "counts": []})]),
            "size 3 in",
        ),
    ],
)
def test_mistakes_in_coco_files_are_reported(tmp_path: Path, content: Any, message: str) -> None:
    images(tmp_path, "a.png", "b.png")
    path = write(tmp_path / "set.json", content)
    line = complaint(path)
    assert re.search(message, line), line
    assert "set.json" in line
    assert len(line) < 1500


@pytest.mark.parametrize(
    "region",
    [
        *(
            3,
            "abc",
            True,
            {"counts": {}},
            {"size": 3, "counts": "x"},
            {"size": [5, 7], "counts": [[1]]},
            [[[1, 2]]],
        ),
        *([[1e300] * 6], [[10**18] * 6], [[True] * 6], [["1"] * 6], [None], [[]], {"size": [5, 7], "counts": "0"}),
    ],
)
def test_a_damaged_annotation_is_reported_and_the_check_continues(tmp_path: Path, region: Any) -> None:
    entries = images(tmp_path, *(f"{name}.png" for name in "abcd"))
    path = write(
        tmp_path / "set.json", coco(entries, [annotation(i, [SQUARE]) for i in (1, 2, 3)] + [annotation(4, region)])
    )
    report = check_dataset(open_dataset(path))
    (problem,) = report.errors
    assert "set.json (regions of d.png)" in problem.line()
    assert report.mask_kinds == {"COCO regions": 3}


def test_line_breaks_in_names_do_not_break_the_lines_of_a_report(tmp_path: Path) -> None:
    entries = images(tmp_path, *(f"{name}.png" for name in "abcd"))
    categories = [{"id": 1, "name": "large\npolyp"}, {"id": 2, "name": ["x"]}, {"id": [3]}, None]
    annotations = [annotation(i, [SQUARE], category_id=i % 2 + 1) for i in (1, 2, 3, 4)]
    path = write(tmp_path / "set.json", coco(entries, annotations, categories=categories))
    lines = str(check_dataset(open_dataset(path))).splitlines()
    assert r"           large\npolyp" in lines
    annotations[0]["category_id"] = [1]
    write(path, coco(entries, annotations, categories="x"))
    assert "2 classes, all of which are foreground" in str(check_dataset(open_dataset(path)))


# Sizes


def test_an_image_without_a_size_has_the_size_of_its_file(tmp_path: Path) -> None:
    entries = [{"id": e["id"], "file_name": e["file_name"]} for e in images(tmp_path, "a.png", "b.png")]
    path = write(tmp_path / "set.json", coco(entries, [annotation(i, [SQUARE]) for i in (1, 2)]))
    assert {load_mask(pair.mask).shape for pair in find_pairs(path)} == {(5, 7)}


def test_a_huge_size_is_compared_with_the_image_before_anything_is_drawn(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png", "c.png")
    entries[0] |= {"height": 45_000, "width": 45_000}
    entries[1] |= {"height": 50_000, "width": 70_000}  # of the image's proportions
    path = write(tmp_path / "set.json", coco(entries, [annotation(i, [SQUARE]) for i in (1, 2, 3)]))
    tracemalloc.start()
    report = check_dataset(open_dataset(path))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    messages = [problem.line() for problem in report.errors]
    assert any("a.png is 7x5, but 45000x45000 in" in message for message in messages)
    assert any("(regions of b.png): an image of 70000x50000 is larger than" in message for message in messages)


def test_a_polygon_with_endless_lines_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(DatasetError, match="longer than 5,000,000 pixels; simplify it"):
        draw((2000, 2000), [[0, 0, 1999, 1999] * 2000])


# Coordinates that mean nothing


@pytest.mark.parametrize(
    ("region", "size", "message"),
    [
        (
            [[0.1, 0.1, 0.6, 0.1, 0.6, 0.7]],
            (50, 70),
            "coordinates from 0 to 1; they must be pixels: multiply x by 70, y by 50",
        ),
        (
            [[-20, 10, -5, 10, -5, 40]],
            (50, 70),
            r"outlines cover no pixel \(x from -20 to -5, y from 10 to 40 in an image",
        ),
        ([[5.0, 5.0, 5.1, 5.0, 5.1, 5.1]], (50, 70), "outlines cover no pixel"),
    ],
)
def test_outlines_that_draw_nothing_are_an_error(region: Any, size: tuple[int, int], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        draw(size, region)


def test_outlines_over_the_edge_are_reported(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png")
    regions = ([SQUARE], [[1, 1, 12, 1, 12, 4]])
    path = write(tmp_path / "set.json", coco(entries, [annotation(i, r) for i, r in enumerate(regions, 1)]))
    lines = [problem.line() for problem in check_dataset(open_dataset(path)).warnings]
    expected = "1 mask with outlines that extend beyond the image; check that their coordinates are pixels"
    assert any(line.startswith(expected) and "b.png" in line for line in lines)


def test_json_of_another_kind_is_not_read_as_coco(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    write(tmp_path / "boxes.json", {"a": {"bbox": []}})
    write(tmp_path / "broken.json", "{")
    with pytest.raises(DatasetError, match=r"no masks were recognized.*: .*boxes\.json is in no format that is read"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"broken\.json is not JSON"):
        open_dataset(tmp_path / "broken.json")
