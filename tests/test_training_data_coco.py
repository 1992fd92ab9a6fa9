"""COCO files: polygons and run lengths against masks worked out by hand, where images are found, mistakes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from training_sets import picture, save

from condseg_sdk.errors import DatasetError
from condseg_sdk.training.data import RegionMask, Dataset, find_pairs, load_mask, load_pair, open_dataset

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
    return sorted(pair.name for pairs in dataset.parts.values() for pair in pairs)


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
def test_run_lengths_go_down_the_columns(counts: Any) -> None:
    region = {"size": [3, 4], "counts": counts}
    assert draw((3, 4), region).astype(int).tolist() == CODED


def test_no_region_is_an_empty_mask() -> None:
    assert draw((3, 4)).tolist() == [[False] * 4] * 3


@given(mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=60, deadline=None)
def test_run_lengths_of_any_mask(mask: NDArray[np.bool_]) -> None:
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
        ([[1, 1, 2, 2]], "three or more points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "three or more points"),
        ([[1, 1, 2, float("nan"), 3, 3]], "finite numbers"),
        ([[1, 1, 2, "2", 3, 3]], "finite numbers"),
        ([[0, 0, 100, 0, 100, 100]], "far outside the image"),
        ([[0, 0, 1e12, 0, 1, 1]], "far outside the image"),
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


def test_a_coco_file_with_polygons_run_lengths_and_an_image_without_a_region(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png", "c.png")
    run_length = {"size": [5, 7], "counts": [0, 5, 30]}
    path = write(tmp_path / "set.json", coco(entries, [annotation(1, [SQUARE]), annotation(2, run_length, iscrowd=1)]))
    dataset = open_dataset(path)
    masks = {pair.name: load_pair(pair)[1] for part in dataset.parts.values() for pair in part}
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
def test_images_are_found_where_people_put_them(tmp_path: Path, json_path: str, folder: str) -> None:
    entries = images(tmp_path / folder, "a.png", "b.png")
    path = write(tmp_path / json_path, coco(entries, [annotation(1, [SQUARE])]))
    assert all_pairs(open_dataset(path)) == ["a", "b"]
    # The folder says as much as the file, and a folder of images may be given with the file as its masks.
    assert all_pairs(open_dataset(tmp_path)) == ["a", "b"]
    assert all_pairs(open_dataset(tmp_path / folder, masks=path)) == ["a", "b"]


@pytest.mark.parametrize("place", ["{part}/_annotations.coco.json", "annotations/instances_{part}2017.json"])
def test_a_file_for_each_part(tmp_path: Path, place: str) -> None:
    for part, names in (("train", ("a.png", "b.png")), ("valid", ("c.png",)), ("test", ("a.png",))):
        folder = tmp_path / (part if place.startswith("{") else f"{part}2017")
        entries = images(folder, *names)
        write(tmp_path / place.format(part=part), coco(entries, [annotation(1, [SQUARE])]))
    dataset = open_dataset(tmp_path)
    assert [len(part) for part in dataset.parts.values()] == [2, 1, 1]
    assert dataset.test[0].name == "test/a"
    assert dataset.problems == ()
    assert len(find_pairs(tmp_path)) == 4


def test_a_polygon_without_the_list_around_it(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png")
    path = write(tmp_path / "set.json", coco(entries, [annotation(i, SQUARE) for i in (1, 2)]))
    assert {load_mask(pair.mask).sum() for pair in open_dataset(path).train} == {12}


def test_several_categories_are_one_region_and_remarked(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png")
    annotations = [annotation(1, [SQUARE]), annotation(2, [SQUARE], category_id=2)]
    path = write(tmp_path / "set.json", coco(entries, annotations))
    (problem,) = open_dataset(path).problems
    assert problem.severity == "warning"
    assert problem.message.startswith("set.json has 2 categories, all of which were taken for the one region")
    assert problem.files == ("2", "polyp")


def test_missing_and_repeated_images_are_listed(tmp_path: Path) -> None:
    entries = images(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "c.png").unlink()
    entries.append({**entries[0], "id": 4})
    path = write(tmp_path / "set.json", coco(entries, [annotation(1, [SQUARE])]))
    again, missing = open_dataset(path).problems
    assert again.message.startswith("1 image described twice in the COCO files")
    assert again.files == (str(tmp_path / "a.png"),)
    assert missing.message.startswith("1 image of the COCO file that does not exist")
    assert missing.files == (str(tmp_path / "c.png"),)


ENTRY = {"id": 1, "file_name": "a.png", "height": 5, "width": 7}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([], "no COCO file: it needs the lists 'images' and 'annotations'"),
        ({"images": {}, "annotations": []}, "no COCO file"),
        (coco([], []), "lists no images"),
        (coco([{"id": 1, "file_name": "a.png"}], []), "lacks one of id, file_name, height, width"),
        (coco([{**ENTRY, "height": 0}], []), "a.png is 7x0; give its size"),
        (coco([ENTRY, {**ENTRY, "file_name": "b.png"}], []), "two images have the id 1"),
        (coco([ENTRY], [annotation(9, [SQUARE])]), "belongs to image 9, which is not in 'images'"),
        (coco([ENTRY], ["x"]), "belongs to image None"),
        (coco([ENTRY], [annotation(1, [], bbox=[1, 2, 3, 4])]), "annotation 10 has no segmentation; .* not boxes"),
        (coco([{**ENTRY, "file_name": "z.png"}], []), "none of its images, such as z.png, was found"),
    ],
)
def test_mistakes_in_coco_files_are_named(tmp_path: Path, content: Any, message: str) -> None:
    images(tmp_path, "a.png")
    path = write(tmp_path / "set.json", content)
    with pytest.raises(DatasetError, match=rf"set\.json.*{message}"):
        open_dataset(path)


def test_a_json_of_something_else_is_not_taken_for_coco(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    write(tmp_path / "boxes.json", {"a": {"bbox": []}})
    write(tmp_path / "broken.json", "{")
    with pytest.raises(DatasetError, match=r"no masks were recognised: if .*boxes\.json lists them, give that file"):
        open_dataset(tmp_path)
