"""Labels of every format: read back to the pixel, ordered by uncertainty, written whole, never over others' files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk import open_dataset, save_labels
from condseg_sdk.data import find_pairs, load_mask
from condseg_sdk.errors import CondsegError, OptionError, OutputError
from condseg_sdk.labels import FORMATS
from condseg_sdk.provenance import is_ours
from condseg_sdk.segmentation import Segmentation

SIZE = (9, 12)
EVERY = list(FORMATS)
READ_BACK = {"coco": "coco.json", "labelme": "labelme", "geojson": "geojson", "label-png": "label_png"}


def segmentation(mask: NDArray[np.bool_], path: Path, sure: float = 6.0) -> Segmentation:
    """Return a prediction of this mask, and write its image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (*mask.shape, 3), np.uint8)).save(path)
    logits = np.where(mask, sure, -sure).astype(np.float32)
    return Segmentation(logits, mask.shape, threshold=0.5, source=path, name=str(path))


def disk(radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - 4) ** 2 + (columns - 5) ** 2 <= radius**2


def corner_cases() -> list[NDArray[np.bool_]]:
    empty, first, last, checks = (np.zeros(SIZE, bool) for _ in range(4))
    first[0, 0] = last[-1, -1] = True
    checks[::2, ::2] = checks[1::2, 1::2] = True
    ring = disk(4) & ~disk(2)
    ring[4, 5] = True
    return [empty, first, last, checks, ~checks, ring, ~empty, disk(3)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, NDArray[np.bool_]]]:
    """A folder with images/ and out/, the labels of corner cases in every format, and their masks."""
    folder = tmp_path_factory.mktemp("labels")
    masks = {f"p{n % 2}/{n}.png": mask for n, mask in enumerate(corner_cases())}
    segs = (segmentation(mask, folder / "images" / name) for name, mask in masks.items())
    save_labels(segs, folder / "out", formats=EVERY, label="polyp", root=folder / "images", spacing=(0.5, 0.25))
    return folder, masks


def same_masks(pairs: list, masks: dict[str, NDArray[np.bool_]], folder: Path) -> None:
    assert len(pairs) == len(masks)
    for pair in pairs:
        name = pair.image.resolve().relative_to(folder.resolve()).as_posix()
        np.testing.assert_array_equal(load_mask(pair.mask), masks[name], err_msg=name)


@pytest.mark.parametrize("name", list(READ_BACK))
def test_every_mask_is_read_back_to_the_pixel(name: str, written: tuple[Path, dict[str, NDArray[np.bool_]]]) -> None:
    folder, masks = written
    pairs = find_pairs(folder / "images", masks=folder / "out" / READ_BACK[name])
    same_masks(pairs, masks, folder / "images")


def test_a_yolo_folder_is_a_dataset_of_its_own(written: tuple[Path, dict[str, NDArray[np.bool_]]]) -> None:
    folder, masks = written
    same_masks(find_pairs(folder / "out/yolo"), masks, folder / "out/yolo/images")
    assert len(open_dataset(folder / "out/yolo/data.yaml").validation) > 0


def test_random_masks_are_read_back_to_the_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = {f"{n}.png": rng.random(rng.integers(3, 12, 2)) < rng.random() for n in range(40)}
    segs = (segmentation(mask, tmp_path / "images" / name) for name, mask in masks.items())
    save_labels(segs, tmp_path, formats=["coco", "labelme", "yolo"])
    same_masks(find_pairs(tmp_path / "images", masks=tmp_path / "coco.json"), masks, tmp_path / "images")
    same_masks(find_pairs(tmp_path / "images", masks=tmp_path / "labelme"), masks, tmp_path / "images")
    same_masks(find_pairs(tmp_path / "yolo/data.yaml"), masks, tmp_path / "yolo/images")


def test_what_is_about_all_images_begins_with_the_most_uncertain(tmp_path: Path) -> None:
    segs = [segmentation(disk(3), tmp_path / f"images/{sure}.png", sure) for sure in (4.0, 1.0, 7.0, 2.0)]
    save_labels(segs, tmp_path / "out", formats=["coco", "csv", "sheet"])
    order = ["1.0.png", "2.0.png", "4.0.png", "7.0.png"]
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == order
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4]
    scores = [image["uncertainty"] for image in coco["images"]]
    assert scores == sorted(scores, reverse=True)
    with (tmp_path / "out/measurements.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == order
    with Image.open(tmp_path / "out/contact_sheet.png") as page:
        assert page.width > page.height > 200


def test_the_table_has_the_measures_of_a_rectangle(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[2:5, 4:8] = True  # 3 rows, 4 columns
    mask[8, 0] = True
    save_labels([segmentation(mask, tmp_path / "a.png")], tmp_path / "out", formats="csv", spacing=(0.5, 0.25))
    with (tmp_path / "out/measurements.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["regions"], row["area_px"], row["largest_area_px"]) == ("2", "13", "12")
    assert [row[key] for key in ("x0", "y0", "x1", "y1")] == ["0", "2", "8", "9"]
    assert float(row["equivalent_diameter_px"]) == pytest.approx(2 * (12 / np.pi) ** 0.5, abs=1e-3)
    assert float(row["max_diameter_px"]) == 5.0
    assert float(row["area_mm2"]) == pytest.approx(13 * 0.125)
    assert float(row["max_diameter_mm"]) == pytest.approx((1.5**2 + 1.0**2) ** 0.5, abs=1e-3)


def test_a_second_run_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    segs = [segmentation(disk(3), tmp_path / "images/a.png"), segmentation(disk(2), tmp_path / "images/b.png")]
    out = tmp_path / "out"
    save_labels(segs, out, formats=EVERY)
    assert all(is_ours(path) for path in out.rglob("*") if path.is_file())
    save_labels(segs[:1], out, formats="yolo")
    save_labels(segs, out, formats=EVERY)  # the label file of b.png is still known
    for name in ("coco.json", "measurements.csv", "labelme/a.json", "yolo/labels/b.txt", "geojson/a.geojson"):
        before = (out / name).read_bytes()
        (out / name).write_bytes(before.replace(b"1", b"2", 1))
        with pytest.raises(OutputError, match=rf"{Path(name).name} was not written by condseg.*--overwrite"):
            save_labels(segs, out, formats=EVERY)
        (out / name).write_bytes(before)
    (out / "coco.json").write_text("{}")
    save_labels(segs, out, formats=EVERY, overwrite=True)
    assert is_ours(out / "coco.json")


def test_an_error_in_the_middle_leaves_whole_files_of_the_images_before_it(tmp_path: Path) -> None:
    def predictions() -> Iterator[Segmentation]:
        yield segmentation(disk(3), tmp_path / "images/a.png")
        raise CondsegError("b.png is damaged")

    with pytest.raises(CondsegError, match="damaged"):
        save_labels(predictions(), tmp_path / "out", formats=EVERY)
    assert [image["file_name"] for image in json.loads((tmp_path / "out/coco.json").read_text())["images"]] == ["a.png"]
    assert all(is_ours(path) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_run_without_an_image_leaves_the_files_of_an_earlier_one(tmp_path: Path) -> None:
    save_labels([segmentation(disk(3), tmp_path / "a.png")], tmp_path / "out")
    save_labels([], tmp_path / "out")
    assert len(json.loads((tmp_path / "out/coco.json").read_text())["images"]) == 1


def test_frames_and_arrays_get_names_of_their_own(tmp_path: Path) -> None:
    logits, pixels = np.full(SIZE, 3, np.float32), np.zeros((*SIZE, 3), np.uint8)
    frames = [
        Segmentation(logits, SIZE, threshold=0.5, source=pixels, name="clip.mp4", frame=number) for number in (0, 7)
    ]
    save_labels(frames, tmp_path, formats=["coco", "yolo"])
    names = {image["file_name"] for image in json.loads((tmp_path / "coco.json").read_text())["images"]}
    assert names == {path.name for path in (tmp_path / "yolo/images").iterdir()}
    assert {Path(name).suffix for name in names} == {".png"}


def test_two_images_of_one_name_need_the_folder_of_all_images(tmp_path: Path) -> None:
    segs = [segmentation(disk(3), tmp_path / f"images/{p}/a.png") for p in ("p1", "p2")]
    with pytest.raises(OutputError, match="same name without its folder; pass root="):
        save_labels(segs, tmp_path / "out")
    save_labels(segs, tmp_path / "new", root=tmp_path / "images")
    names = [image["file_name"] for image in json.loads((tmp_path / "new/coco.json").read_text())["images"]]
    assert names == ["p1/a.png", "p2/a.png"]
    with pytest.raises(OptionError, match="is not in"):
        save_labels(segs, tmp_path / "other", root=tmp_path / "elsewhere")


@pytest.mark.parametrize("formats", ["voc", ["coco", "voc"], []])
def test_an_unknown_format_lists_those_there_are(formats: str | list[str], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is not one of coco, labelme"):
        save_labels([], tmp_path, formats=formats)


# What importers expect ------------------------------------------------------------------------------------------------


def test_label_studios_converter_finds_what_it_reads_in_our_coco_file(
    written: tuple[Path, dict[str, NDArray[np.bool_]]],
) -> None:
    # label_studio_sdk/converter/imports/coco.py (`label-studio-converter import coco`): whole numbers as category ids
    # with names; id, file_name, width and height of images; per annotation a score, a bbox of four numbers, iscrowd
    # other than 1 (run lengths "not supported"), and a list of flat polygons.
    coco = json.loads((written[0] / "out/coco.json").read_text())
    assert [(int(category["id"]), category["name"]) for category in coco["categories"]] == [(1, "polyp")]
    images = {image["id"]: image for image in coco["images"]}
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        assert annotation["category_id"] == 1
        assert annotation["iscrowd"] == 0
        assert 0 <= annotation["score"] <= 1
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= image["width"]
        assert 0 <= y < y + height <= image["height"]
        assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in annotation["segmentation"])


def test_cvat_finds_what_it_reads_in_our_coco_file(written: tuple[Path, dict[str, NDArray[np.bool_]]]) -> None:
    # docs.cvat.ai, "COCO": a .json file with instances; masks and polygons; "licenses" and "info" belong to the format.
    # Images are matched with those of the task by their names with folders, and labels by their names.
    folder, masks = written
    coco = json.loads((folder / "out/coco.json").read_text())
    assert {"info", "licenses", "images", "annotations", "categories"} <= coco.keys()
    assert {image["file_name"] for image in coco["images"]} == set(masks)
    assert len({annotation["id"] for annotation in coco["annotations"]}) == len(coco["annotations"])
    for image in coco["images"]:
        boxes = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert sum(a["area"] for a in boxes) == masks[image["file_name"]].sum()


def test_cvat_and_ultralytics_find_what_they_read_in_our_yolo_folder(
    written: tuple[Path, dict[str, NDArray[np.bool_]]],
) -> None:
    # docs.cvat.ai, "Ultralytics YOLO": data.yaml with path, train and names; labels/ of the same structure as images/,
    # a class and fractions in [0, 1] in each line ("YOLOv8 ignores labels" outside of it). Ultralytics requires "val".
    folder = written[0] / "out/yolo"
    lines = (folder / "data.yaml").read_text().splitlines()
    assert lines == ["path: .", "train: images", "val:", "names:", "  0: polyp"]
    images = {path.relative_to(folder / "images").with_suffix("") for path in (folder / "images").rglob("*.png")}
    labels = {path.relative_to(folder / "labels").with_suffix("") for path in (folder / "labels").rglob("*.txt")}
    assert images == labels
    for path in (folder / "labels").rglob("*.txt"):
        for line in path.read_text().splitlines():
            number, *values = line.split()
            assert number == "0"
            assert len(values) >= 8
            assert len(values) % 2 == 0
            assert all(0 <= float(value) <= 1 for value in values)


def test_labelme_finds_what_it_reads(written: tuple[Path, dict[str, NDArray[np.bool_]]]) -> None:
    # labelme/_label_file.py: imagePath is relative to the JSON file; version, flags, shapes with label, points,
    # shape_type, flags and group_id; imageData may be null.
    for path in (written[0] / "out/labelme").rglob("*.json"):
        content = json.loads(path.read_text())
        assert {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"} <= content.keys()
        assert (path.parent / content["imagePath"]).is_file()
        for shape in content["shapes"]:
            assert shape["shape_type"] == "polygon"
            assert shape["label"] == "polyp"


def test_geojson_follows_rfc_7946(written: tuple[Path, dict[str, NDArray[np.bool_]]]) -> None:
    for path in (written[0] / "out/geojson").rglob("*.geojson"):
        for feature in json.loads(path.read_text())["features"]:
            geometry = feature["geometry"]
            several = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
            area = 0.0
            for rings in several:
                for number, ring in enumerate(rings):
                    assert ring[0] == ring[-1]
                    pairs = pairwise(ring)
                    signed = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs) / 2
                    assert (signed > 0) == (number == 0)  # outlines turn left, holes right
                    area += signed
            assert area == feature["properties"]["area"]
            assert feature["properties"]["classification"] == {"name": "polyp"}  # as QuPath reads it


def test_a_label_png_has_the_index_of_the_class(written: tuple[Path, dict[str, NDArray[np.bool_]]]) -> None:
    folder, masks = written
    for name, mask in masks.items():
        with Image.open(folder / "out/label_png" / name) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), mask.astype(np.uint8))


def test_files_of_a_run_that_was_killed_are_explained(tmp_path: Path) -> None:
    segs = [segmentation(disk(3), tmp_path / "images/a.png")]
    save_labels(segs, tmp_path / "out", formats="yolo")
    (tmp_path / "out/checksums.json").unlink()  # it is written at the end of a run
    with pytest.raises(OutputError, match=r"is left from a run that was killed.* add --overwrite"):
        save_labels(segs, tmp_path / "out", formats="yolo")
    save_labels(segs, tmp_path / "out", formats="yolo", overwrite=True)
