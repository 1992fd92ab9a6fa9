"""Several masks of one image are merged if their names are clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from condseg_sdk.data import check_dataset, load_mask, open_dataset
from tests.helpers.datasets import add_pair, errors, make_set, matched, picture, region, save, warnings


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("benign (2).png", ["benign (2)_mask.png", "benign (2)_mask_1.png", "benign (2)_mask_2.png"]),  # BUSI
        ("x.png", ["x_mask.png", "x-mask-1.png"]),
        ("x.png", ["x_mask1.png", "x_mask2.png"]),
        ("x.png", ["x_1_mask.png", "x_2_mask.png"]),
        ("x.png", ["mask_x_0.png", "mask_x_1.png"]),
        ("x_image.png", ["x_mask.png", "x_mask_1.png"]),
        ("x.jpg", ["x_segmentation (1).png", "x_segmentation (2).png"]),
        ("images/x.png", ["masks/x.png", "masks/x_mask_1.png"]),
        ("images/x.png", ["masks/x_1.png", "masks/x_2.png", "masks/x_3.png"]),
        ("images/x.png", ["masks/x/first.png", "masks/x/7.png"]),
        ("x/images/x.png", ["x/masks/0af3.png", "x/masks/bb02.png", "x/masks/cc.png"]),  # Data Science Bowl 2018
        ("x/image.png", ["x/mask_1.png", "x/mask_2.png"]),
        ("x/image.png", ["x/mask.png", "x/mask (1).png"]),
    ],
)
def test_several_masks_of_one_image_are_merged_and_counted(tmp_path: Path, image: str, masks: list[str]) -> None:
    for other in ("o1", "o2", "o3"):
        for name in (image, masks[0]):
            stem = "benign (2)" if "benign" in name else "x"
            save(tmp_path / name.replace(stem, other, 1), region() if name == masks[0] else picture(other))
    save(tmp_path / image, picture("x"))
    for number, name in enumerate(masks):
        mask = np.zeros((20, 30), np.uint8)
        mask[4:12, 9 * number : 9 * number + 5] = 255
        save(tmp_path / name, mask)
    dataset = open_dataset(tmp_path)
    (pair,) = (p for part in dataset.splits.values() for p in part if p.image == tmp_path / image)
    assert load_mask(pair.mask).sum() == 8 * 5 * len(masks)
    assert errors(dataset) == []
    (warning,) = (line for line in warnings(dataset) if "several masks" in line)
    assert warning.startswith("1 image with several masks, which were merged")
    assert f"{tmp_path / image} ({len(masks)})" in warning
    assert "1 by several files, merged" in str(check_dataset(dataset))


def test_ambiguous_numbers_in_names_are_not_guessed(tmp_path: Path) -> None:
    # scan_mask_1 may be the mask of scan_1.
    for name in ("scan", "scan_1", "other"):
        save(tmp_path / "a" / f"{name}.png", picture(name))
    for name in ("scan_mask", "scan_mask_1", "other_mask"):
        save(tmp_path / "a" / f"{name}.png", region())
    assert matched(open_dataset(tmp_path / "a")) == {"scan": "scan_mask.png", "other": "other_mask.png"}
    assert len(errors(open_dataset(tmp_path / "a"))) == 2
    # A frame that lost its image is no second mask of another one.
    make_set(tmp_path / "b", ["frame", "frame_1", "frame_2"])
    (tmp_path / "b" / "images" / "frame_2.png").unlink()
    assert matched(open_dataset(tmp_path / "b")) == {"frame": "frame.png", "frame_1": "frame_1.png"}
    assert "1 mask without an image with the same name" in errors(open_dataset(tmp_path / "b"))[0]
    make_set(tmp_path / "c", ["case", "other", "third"])
    (tmp_path / "c" / "masks" / "case.png").rename(tmp_path / "c" / "masks" / "case_12.png")
    assert len(errors(open_dataset(tmp_path / "c"))) == 2


def test_merged_masks_of_two_sizes_are_an_error_of_their_pair(tmp_path: Path) -> None:
    make_set(tmp_path, "abc")
    save(tmp_path / "masks" / "a_mask_1.png", region((10, 15)))
    (problem,) = check_dataset(open_dataset(tmp_path)).errors
    assert "a.png and" in problem.line()
    assert "a_mask_1.png are 30x20 and 15x10: masks of one image must have the same size" in problem.line()


def test_masks_matched_by_their_folder_are_reported(tmp_path: Path) -> None:
    for name in "abc":
        add_pair(tmp_path / name / "images" / "scan.png", tmp_path / name / "masks" / "label_map.png")
    dataset = open_dataset(tmp_path)
    assert len(matched(dataset)) == 3
    assert warnings(dataset)[0].startswith("3 images matched with the masks in its folder, whose names differ")
