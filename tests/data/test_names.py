"""Words in the names of files and folders."""

from __future__ import annotations

from pathlib import Path

from condseg_sdk.data.names import (
    folder_role,
    split_of_folders,
    split_of_name,
    unique_names,
    without_image_word,
    without_mask_word,
)


def test_roles_and_splits_are_recognized_by_words() -> None:
    assert [folder_role(n) for n in ("GT", "1st_manual", "trainImages", "image_masks", "dataset", "x")] == [
        "masks",
        "masks",
        "images",
        "masks",
        None,
        None,
    ]
    assert [split_of_folders([n]) for n in ("TestDataset", "val2017", "train", "latest", "trained", "devel")] == [
        "test",
        "validation",
        "train",
        None,
        None,
        None,
    ]
    assert [split_of_name(n) for n in ("train_1", "testA_1", "Val-3", "test7", "tester_1", "trainee")] == [
        "train",
        "test",
        "validation",
        "test",
        None,
        None,
    ]
    assert without_mask_word("a_Segmentation") == without_mask_word("mask_a") == "a"
    assert without_mask_word("mask") == "mask"
    assert without_mask_word("masked") == "masked"
    assert without_image_word("img12") == "12"


def test_unique_names_use_only_the_needed_part_of_the_path() -> None:
    assert unique_names([Path("/d/a/1.png"), Path("/d/b/2.png")]) == ["1", "2"]
    assert unique_names([Path("/d/a/1.png"), Path("/d/b/1.png")]) == ["a/1", "b/1"]
    assert unique_names([Path("/d/1.png"), Path("/d/1.jpg")]) == ["1.png", "1.jpg"]
    assert unique_names([Path("1.png")]) == ["1"]


def test_paths_without_a_name_are_named_by_themselves() -> None:
    assert unique_names([Path(), Path("a/1.png"), Path("b/1.png")]) == [".", "a/1", "b/1"]
