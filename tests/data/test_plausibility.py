"""Masks that parse and mean nothing: the check looks at what was made of them and says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.data import DatasetReport, Pair, RegionMask, check_dataset, open_dataset
from condseg_sdk.data.budget import pair_bytes
from condseg_sdk.data.pairs import MergedMask
from condseg_sdk.data.plausibility import describe_shape
from tests.helpers.datasets import make_set, picture, region, save, write_json

NAMES = [f"n{i}" for i in range(8)]
SIZE = (120, 160)


def blob(y: int, x: int, radius: int) -> NDArray[np.uint8]:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return np.where((rows - y) ** 2 + (columns - x) ** 2 <= radius**2, 255, 0).astype(np.uint8)


def check(folder: Path, masks: list[NDArray[np.uint8]]) -> DatasetReport:
    for name, mask in zip(NAMES, masks, strict=True):
        save(folder / "images" / f"{name}.png", picture(name, SIZE))
        save(folder / "masks" / f"{name}.png", mask)
    return check_dataset(open_dataset(folder))


def matching(report: DatasetReport, severity: str, text: str) -> list[str]:
    return [p.line() for p in report.problems if p.severity == severity and text in p.message]


def test_good_masks_are_plausible(tmp_path: Path) -> None:
    report = check(tmp_path, [blob(60, 80, 20) for _ in NAMES])
    assert [p.message for p in report.problems if "mask" in p.message] == []


def test_tiny_areas_are_an_error_if_all_masks_have_them_and_otherwise_a_warning(tmp_path: Path) -> None:
    report = check(tmp_path, [blob(60, 80, 1) for _ in NAMES])
    (line,) = matching(report, "error", "with an area of 9 pixels or fewer")
    assert line.startswith(
        "8 masks with an area of 9 pixels or fewer; check that coordinates are pixels of that image: "
    )
    report = check(tmp_path, [blob(60, 80, 1 if name == "n3" else 20) for name in NAMES])
    assert report.errors == ()
    assert "n3.png" in matching(report, "warning", "1 mask with an area of 9 pixels or fewer")[0]


def test_boxes_are_reported_if_most_masks_are_boxes(tmp_path: Path) -> None:
    box = np.zeros(SIZE, np.uint8)
    box[10:40, 20:90] = box[60:90, 100:150] = 255
    report = check(tmp_path, [box if int(name[1]) < 5 else blob(60, 80, 20) for name in NAMES])
    (line,) = matching(report, "warning", "only rectangles")
    assert line.startswith("5 masks that are only rectangles, so the network learns boxes; draw outlines")
    report = check(tmp_path, [box if int(name[1]) < 3 else blob(60, 80, 20) for name in NAMES])
    assert matching(report, "warning", "only rectangles") == []


def test_coordinates_in_percent_or_of_a_smaller_image_are_reported(tmp_path: Path) -> None:
    report = check(tmp_path, [blob(20 + i, 30 + i, 15) for i in range(8)])
    (line,) = matching(report, "warning", "upper left quarter")
    assert "not percent or pixels of a smaller image" in line
    assert matching(check(tmp_path, [blob(20 + 8 * i, 30, 15) for i in range(8)]), "warning", "upper left") == []


def annotated(folder: Path, points: list[tuple[float, float]]) -> DatasetReport:
    """A COCO set of 120x160 images, each with one polygon."""
    for name in NAMES:
        save(folder / f"{name}.png", picture(name, SIZE))
    images = [{"id": i, "file_name": f"{name}.png", "height": 120, "width": 160} for i, name in enumerate(NAMES)]
    flat = [value for point in points for value in point]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "segmentation": [flat]} for i in range(len(NAMES))]
    write_json(folder / "set.json", {"images": images, "annotations": annotations})
    return check_dataset(open_dataset(folder))


def test_every_wrong_scale_of_coco_coordinates_is_reported_with_a_remedy_that_works(tmp_path: Path) -> None:
    shares = [(0.3, 0.2), (0.8, 0.4), (0.6, 0.9), (0.25, 0.7)]
    report = annotated(tmp_path, shares)
    assert "coordinates from 0 to 1; they must be pixels: multiply x by 160, y by 120" in report.errors[0].line()
    report = annotated(tmp_path, [(x * 5, y * 5) for x, y in shares])
    assert report.errors[0].line().startswith("8 masks with an area of 9 pixels or fewer")
    report = annotated(tmp_path, [(x * 60, y * 60) for x, y in shares])
    assert matching(report, "warning", "upper left quarter")
    report = annotated(tmp_path, [(x * 100, y * 100) for x, y in shares])  # percent, near enough to pixels to pass
    assert report.errors == ()
    report = annotated(tmp_path, [(x * 240, y * 180) for x, y in shares])
    assert matching(report, "warning", "outlines that extend beyond the image")
    report = annotated(tmp_path, [(x * 1600, y * 1200) for x, y in shares])
    assert "far outside of the image; its points must be pixels of that image" in report.errors[0].line()
    report = annotated(tmp_path, [(x * 160, y * 120) for x, y in shares])
    assert [p.message for p in report.problems if "mask" in p.message or "outline" in p.message] == []


def test_the_shape_of_a_mask_is_described() -> None:
    mask = np.zeros((10, 20), bool)
    assert describe_shape(mask).reach == (0, 0)
    mask[2:5, 3:9] = True
    shape = describe_shape(mask)
    assert (shape.pixels, shape.share, shape.reach, shape.border) == (18, 18 / 200, (0.5, 0.45), 0)
    assert not shape.is_boxes  # too small to tell
    assert not describe_shape(np.ones((10, 20), bool)).is_boxes  # the whole image, which is said elsewhere


# Memory


def test_the_memory_of_a_pair_is_estimated_from_headers(tmp_path: Path) -> None:
    image, mask = tmp_path / "a.png", tmp_path / "m.npy"
    save(image, picture("a", SIZE))
    np.save(mask, region().astype(np.float64))
    one = 10 * SIZE[0] * SIZE[1]
    assert pair_bytes(Pair("a", image, mask)) == one + 4 * 600 * 8
    assert pair_bytes(Pair("a", image, MergedMask((image, image)))) == 3 * one
    assert pair_bytes(Pair("a", image, RegionMask(mask, "a", (4, 5), ()))) == one + 200
    assert pair_bytes(Pair("a", image, RegionMask(mask, "a", None, ()))) == 2 * one


@pytest.mark.parametrize("size", [(45_000, 45_000), (2, 60_000_000)])
def test_a_huge_mask_is_one_error_of_the_check(tmp_path: Path, size: tuple[int, int]) -> None:
    make_set(tmp_path, "abc")
    header = b"P5 %d %d 255\n" % size
    (tmp_path / "masks" / "b.png").unlink()
    (tmp_path / "masks" / "b.pgm").write_bytes(header)
    (problem,) = check_dataset(open_dataset(tmp_path)).errors
    assert "b.pgm" in problem.line()


MEASURED = """
import resource, sys
from condseg_sdk.data import check_dataset, open_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = check_dataset(open_dataset(sys.argv[1]))
assert sum(report.mask_kinds.values()) == 4, report
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
def test_large_pairs_are_read_one_after_the_other_and_release_their_memory(tmp_path: Path) -> None:
    side = 6000  # 36 megapixels, of which Pillow keeps four bytes each
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = Image.new("L", (side, side))
    mask.paste(255, (2000, 2000, 4000, 3000))
    for name in "abcd":
        Image.new("RGB", (side, side), "red").save(tmp_path / "images" / f"{name}.png", compress_level=1)
        mask.save(tmp_path / "masks" / f"{name}.png", compress_level=1)
    ran = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 600
