"""Layouts: folders, lists, CSV files and Python lists as people have them, and the mistakes in them."""

from __future__ import annotations

import csv
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condseg_sdk.data import Dataset, Pair, check_dataset, find_pairs, load_mask, open_dataset, read_names
from condseg_sdk.data.names import (
    folder_role,
    split_of_folders,
    split_of_name,
    unique_names,
    without_image_word,
    without_mask_word,
)
from condseg_sdk.errors import DatasetError, OptionError
from tests.helpers.datasets import add_pair, make_set, picture, region, save


def names(pairs: list[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


def matched(dataset: Dataset) -> dict[str, str]:
    """Mask file by image name, over all parts."""
    return {p.name: Path(str(p.mask)).name for part in dataset.splits.values() for p in part}


def errors(dataset: Dataset) -> list[str]:
    return [problem.line() for problem in dataset.problems if problem.severity == "error"]


def warnings(dataset: Dataset) -> list[str]:
    return [problem.line() for problem in dataset.problems if problem.severity == "warning"]


# Folders


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("Images", "Labels"),
        ("img", "GT"),
        ("image", "mask"),
        ("Original", "Ground Truth"),  # CVC-ClinicDB
        ("PNG/Original", "PNG/Ground Truth"),  # CVC-ClinicDB as others pass it on
        ("JPEGImages", "SegmentationClass"),
        ("input", "groundtruth"),
        ("frames", "annotations"),
        ("polyps", "gt"),
        (".", "masks"),
        ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        # archives unpacked into folders of their own names
        ("ISIC-2017_Training_Data/ISIC-2017_Training_Data", "ISIC_GroundTruth/ISIC_GroundTruth"),
    ],
)
def test_folders_are_known_by_the_words_in_their_names(tmp_path: Path, images: str, masks: str) -> None:
    dataset = open_dataset(make_set(tmp_path, "abc", images, masks))
    assert matched(dataset) == {"a": "a.png", "b": "b.png", "c": "c.png"}
    assert len(dataset.validation) == 1
    assert dataset.problems == ()
    assert Path(images).name in dataset.layout or images == "."


@pytest.mark.parametrize("order", ["{part}/{kind}", "{kind}/{part}", "{part}_{kind}", "set/{part}/{kind}"])
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "Validation", "Testing")])
def test_parts_above_below_and_in_the_folders_names(tmp_path: Path, order: str, words: tuple[str, ...]) -> None:
    for word, stems in zip(words, ("abcd", "ef", "g"), strict=True):
        make_set(tmp_path, stems, order.format(part=word, kind="images"), order.format(part=word, kind="masks"))
    dataset = open_dataset(tmp_path)
    assert [[name[-1] for name in names(part)] for part in dataset.splits.values()] == [[*"abcd"], [*"ef"], ["g"]]
    assert dataset.problems == ()


def test_one_name_in_two_parts_is_two_images(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        make_set(tmp_path / part, ["1", "2"])
    dataset = open_dataset(tmp_path)
    assert names(dataset.train) == ["train/1", "train/2"]
    assert names(dataset.validation) == ["validation/1", "validation/2"]


def test_a_missing_validation_part_is_held_out_from_training_and_never_from_test(tmp_path: Path) -> None:
    make_set(tmp_path / "train", [f"t{i}" for i in range(20)])
    make_set(tmp_path / "test", ["x", "y"])
    dataset = open_dataset(tmp_path, val_fraction=0.25)
    assert (len(dataset.train), len(dataset.validation)) == (15, 5)
    assert names(dataset.test) == ["x", "y"]
    assert "5 of 20 training pairs held out" in dataset.layout


def test_patients_folders_become_part_of_the_name(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        make_set(tmp_path, ["1", "2"], f"images/{patient}", f"masks/{patient}")
    assert names(find_pairs(tmp_path)) == ["p1/1", "p1/2", "p2/1", "p2/2"]
    dataset = open_dataset(tmp_path, group_by=r"^(p\d)/", val_fraction=0.5)
    assert {p.group for p in dataset.train} | {p.group for p in dataset.validation} == {"p1", "p2"}
    assert len(dataset.train) == len(dataset.validation) == 2


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a_segmentation.png"),
        ("a.bmp", "a_anno.bmp"),
        ("a.png", "a-mask.png"),
        ("a.png", "mask_a.png"),
        ("img_7.png", "mask_7.png"),
        ("image7.png", "label7.png"),
        ("a_image.png", "a_mask.png"),
        ("A.PNG", "a.png"),
        ("v1.2.png", "v1.2_GT.png"),
    ],
)
def test_masks_named_with_a_word(tmp_path: Path, image: str, mask: str) -> None:
    add_pair(tmp_path / "images" / image, tmp_path / "masks" / mask)
    add_pair(tmp_path / "images" / "other.png", tmp_path / "masks" / "other.png")
    assert (tmp_path / "masks" / mask) in [pair.mask for pair in find_pairs(tmp_path)]


def test_an_exact_name_comes_before_one_with_a_word(tmp_path: Path) -> None:
    make_set(tmp_path, ["a", "a_mask"])
    assert {p.name: p.mask.name for p in find_pairs(tmp_path)} == {"a": "a.png", "a_mask": "a_mask.png"}  # type: ignore[union-attr]


def test_names_of_a_mac_and_of_linux_are_the_same(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "Ménière") for form in ("NFC", "NFD"))
    assert one != two
    add_pair(tmp_path / "images" / f"{one}.png", tmp_path / "masks" / f"{two}.png")
    assert len(find_pairs(tmp_path)) == 1


def test_glas_as_downloaded(tmp_path: Path) -> None:
    """One folder: train_1.bmp with train_1_anno.bmp, and the test sets A and B."""
    for stem in (*(f"train_{i}" for i in range(1, 11)), "testA_1", "testA_2", "testB_1"):
        add_pair(tmp_path / f"{stem}.bmp", tmp_path / f"{stem}_anno.bmp")
    (tmp_path / "Grade.csv").write_text("name,grade\n")
    dataset = open_dataset(tmp_path)
    assert names(dataset.test) == ["testA_1", "testA_2", "testB_1"]
    assert sorted(names(dataset.train) + names(dataset.validation)) == sorted(f"train_{i}" for i in range(1, 11))
    assert all(mask == f"{name}_anno.bmp" for name, mask in matched(dataset).items())
    assert dataset.problems == ()
    assert "beside their images" in dataset.layout


def test_isic_as_downloaded(tmp_path: Path) -> None:
    """Two folders of a long name; _segmentation.png; superpixels beside the images; three parts."""
    for part, stems in (("Training", ("ISIC_1", "ISIC_2")), ("Validation", ("ISIC_3",)), ("Test_v2", ("ISIC_4",))):
        for stem in stems:
            data = tmp_path / f"ISIC-2017_{part}_Data"
            add_pair(
                data / f"{stem}.jpg", tmp_path / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{stem}_segmentation.png"
            )
            save(data / f"{stem}_superpixels.png", picture(stem))
    dataset = open_dataset(tmp_path)
    assert {part: names(pairs) for part, pairs in dataset.splits.items()} == {
        "train": ["ISIC_1", "ISIC_2"],
        "validation": ["ISIC_3"],
        "test": ["ISIC_4"],
    }
    assert dataset.problems == ()


def test_masks_in_a_folder_elsewhere(tmp_path: Path) -> None:
    make_set(tmp_path, ["a", "b"], "pictures of skin", "elsewhere/drawn")
    dataset = open_dataset(tmp_path / "pictures of skin", masks=tmp_path / "elsewhere" / "drawn")
    assert sorted(matched(dataset)) == ["a", "b"]
    # Inside the folder of images, too, and with other masks near it.
    make_set(tmp_path / "all", ["a", "b"], "images", "second reader")
    make_set(tmp_path / "all", ["a", "b"], "images", "masks")
    inside = open_dataset(tmp_path / "all", masks=tmp_path / "all" / "second reader")
    assert {p.mask.parent.name for p in (*inside.train, *inside.validation)} == {"second reader"}  # type: ignore[union-attr]


def test_masks_of_one_folder_serve_images_in_parts(tmp_path: Path) -> None:
    for part, stems in (("train", "abc"), ("val", "d")):
        make_set(tmp_path, stems, f"images/{part}", "masks")
    dataset = open_dataset(tmp_path)
    assert (names(dataset.train), names(dataset.validation)) == ([*"abc"], ["d"])
    assert dataset.problems == ()


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    make_set(tmp_path / "train", "abc")
    save(tmp_path / "test" / "images" / "x.png", picture("x"))  # a competition's test part: no masks
    save(tmp_path / "overlays" / "a.png", picture("a"))
    dataset = open_dataset(tmp_path)
    assert warnings(dataset) == [
        "2 folders not used, since its name does not mean images with masks: overlays/, test/images/"
    ]
    assert len(dataset.train) + len(dataset.validation) == 3
    assert dataset.test == []


def test_hidden_files_and_a_macs_leavings_are_left_out(tmp_path: Path) -> None:
    make_set(tmp_path, "abc")
    for stray in ("images/._a.png", "__MACOSX/images/a.png", ".cache/images/a.png", "images/Thumbs.db"):
        (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stray).write_bytes(b"x")
    assert names(find_pairs(tmp_path)) == [*"abc"]


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    real = make_set(tmp_path / "real", "abc")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "images").symlink_to(real / "images", target_is_directory=True)
    (linked / "masks").symlink_to(real / "masks", target_is_directory=True)
    assert names(find_pairs(linked)) == [*"abc"]
    (linked / "up").symlink_to(tmp_path, target_is_directory=True)
    open_dataset(linked)


# Mistakes in folders


# Any depth, and what a walk leaves out


@pytest.mark.parametrize("depth", [5, 12])
def test_folders_count_at_any_depth(tmp_path: Path, depth: int) -> None:
    below = "/".join(f"d{i}" for i in range(depth))
    for name in "abc":
        make_set(tmp_path, [name], f"TrainDataset/images/{name}/{below}", f"TrainDataset/masks/{name}/{below}")
    make_set(tmp_path, ["d"], "TrainDataset/images", "TrainDataset/masks")
    assert len(find_pairs(tmp_path)) == 4


def test_a_link_to_a_folder_above_adds_no_pair(tmp_path: Path) -> None:
    make_set(tmp_path, "abc")
    (tmp_path / "images" / "again").symlink_to(tmp_path)
    (tmp_path / "masks" / "again").symlink_to(tmp_path)
    assert names(find_pairs(tmp_path)) == [*"abc"]


def test_what_is_left_out_is_counted_by_kind_in_one_line(tmp_path: Path) -> None:
    make_set(tmp_path, "abc")
    for name in ("images/x.dcm", "images/y.dcm", "images/clip.mp4", "notes.docx", "images/.hidden.png", "train.txt"):
        (tmp_path / name).write_text("a\nb\nc")
    save(tmp_path / "images" / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_XL.png", picture("thumb"))
    save(tmp_path / "masks" / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_XL.png", picture("thumb"))
    dataset = open_dataset(tmp_path)
    expected = "2 .dcm files, 2 folders named @eaDir, 1 .docx file, 1 .mp4 file, 1 hidden file"
    assert dataset.left_out == expected
    assert f"left out {expected}" in str(check_dataset(dataset)).splitlines()
    assert sum(len(part) for part in dataset.splits.values()) == 3


def test_images_that_nothing_reads_are_named_by_their_kind(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm", "c.mp4"):
        (tmp_path / name).write_text("a")
    with pytest.raises(DatasetError, match=r"holds no images \(left out: 2 \.dcm files, 1 \.mp4 file\); images are"):
        open_dataset(tmp_path)


# Several masks of one image


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


def test_numbers_that_may_mean_something_else_are_no_guess(tmp_path: Path) -> None:
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
    assert "1 mask without an image of its name" in errors(open_dataset(tmp_path / "b"))[0]
    make_set(tmp_path / "c", ["case", "other", "third"])
    (tmp_path / "c" / "masks" / "case.png").rename(tmp_path / "c" / "masks" / "case_12.png")
    assert len(errors(open_dataset(tmp_path / "c"))) == 2


def test_merged_masks_of_two_sizes_are_an_error_of_their_pair(tmp_path: Path) -> None:
    make_set(tmp_path, "abc")
    save(tmp_path / "masks" / "a_mask_1.png", region((10, 15)))
    (problem,) = check_dataset(open_dataset(tmp_path)).errors
    assert "a.png and" in problem.line()
    assert "a_mask_1.png are 30x20 and 15x10: masks of one image must be of one size" in problem.line()


def test_masks_found_by_their_folder_are_said(tmp_path: Path) -> None:
    for name in "abc":
        add_pair(tmp_path / name / "images" / "scan.png", tmp_path / name / "masks" / "label_map.png")
    dataset = open_dataset(tmp_path)
    assert len(matched(dataset)) == 3
    assert warnings(dataset)[0].startswith("3 images matched with the masks in its folder, whose names differ")


def test_unmatched_images_and_masks_are_all_listed_with_what_to_do(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    for name in "ab":
        (tmp_path / "masks" / f"{name}.png").unlink()
    (tmp_path / "images" / "f.png").unlink()
    dataset = open_dataset(tmp_path)
    images, masks = dataset.problems
    assert images.message.startswith("2 images without a mask of its name; add an all-black mask")
    assert images.files == (str(tmp_path / "images/a.png"), str(tmp_path / "images/b.png"))
    assert masks.message.startswith("1 mask without an image of its name; add the image")
    assert masks.files == (str(tmp_path / "masks/f.png"),)
    with pytest.raises(DatasetError, match=r"2 images without .*images/a\.png"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("second", ["a.jpg", "A.png"])
def test_two_files_of_one_name_are_named(tmp_path: Path, kind: str, second: str) -> None:
    make_set(tmp_path, "abc")
    save(tmp_path / kind / second, picture(second))
    if len([*(tmp_path / kind).iterdir()]) == 3:
        pytest.skip("this file system knows no case")
    (message,) = errors(open_dataset(tmp_path))
    assert "1 name of several files" in message
    assert "keep one" in message
    assert second in message


def test_two_formats_of_one_set_are_not_two_sets(tmp_path: Path) -> None:
    for form in ("PNG", "TIF"):
        make_set(tmp_path, ["1", "2"], f"{form}/Original", f"{form}/Ground Truth")
    message = errors(open_dataset(tmp_path))[0]
    assert "2 names of several files" in message
    assert "PNG/Original/1.png and " in message
    assert len(find_pairs(tmp_path / "TIF")) == 2


def test_two_folders_of_masks_are_no_guess(tmp_path: Path) -> None:
    make_set(tmp_path, "ab")
    make_set(tmp_path, "ab", "images", "labels")
    assert "2 names of several files" in errors(open_dataset(tmp_path))[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images"),
        ({"images": ["a.png"]}, "no masks were recognized: put them into a folder named masks/"),
        ({"masks": ["a.png"]}, "but no images; put them into a folder named images/"),
        ({"images": ["a.png"], "masks": ["z.png"]}, "images are named like a.png, masks like z.png"),
        ({"test/images": ["a.png"], "test/masks": ["a.png"]}, "no pairs to train on; only test was found"),
        ({"images": ["a.png"], "masks": ["a.png"]}, "1 pair: at least one to train on and one to hold out"),
    ],
)
def test_folders_without_a_training_set(tmp_path: Path, files: dict[str, list[str]], message: str) -> None:
    for folder, stems in files.items():
        for stem in stems:
            save(tmp_path / folder / stem, picture(stem))
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist; check the path"):
        open_dataset(tmp_path / "nowhere")
    make_set(tmp_path, "ab")
    with pytest.raises(DatasetError, match=r"nothing does not exist"):
        open_dataset(tmp_path / "images", masks=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty holds no masks"):
        open_dataset(tmp_path / "images", masks=tmp_path / "empty")
    (tmp_path / "set.zip").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"set\.zip is neither a folder nor a file named \.csv, \.tsv, \.json"):
        open_dataset(tmp_path / "set.zip")


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    make_set(tmp_path, "ab")
    with pytest.raises(OptionError, match="needs a folder of images as data"):
        open_dataset(tmp_path / "set.csv", masks=tmp_path)
    with pytest.raises(OptionError, match=r"val_fraction=1\.5 must be between 0 and 1"):
        open_dataset(tmp_path, val_fraction=1.5)
    with pytest.raises(OptionError, match=r"group_by='\(' is neither a regular expression"):
        open_dataset(tmp_path, group_by="(")
    with pytest.raises(DatasetError, match=r"does not match 2 names, such as 'a'"):
        open_dataset(tmp_path, group_by=r"p\d")
    with pytest.raises(OptionError, match="data is int"):
        open_dataset(7)  # type: ignore[arg-type]


kinds = st.sampled_from(
    [("images", "masks"), ("Original", "Ground Truth"), (".", "GT"), (".", "."), ("data", "labels")]
)
parts = st.sampled_from([".", ".", "train", "val", "test", "p1", "p2", "PNG", "x"])
stems = st.sampled_from(["1", "2", "3", "A", "a", "b", "a_mask", "mask_1", "train_1", "test_1", "b_superpixels"])
suffixes = st.sampled_from([".png", ".png", ".JPG", ".npy"])


@given(
    kind=kinds,
    pairs=st.lists(st.tuples(parts, parts, stems, suffixes, st.sampled_from(["", "_mask"])), max_size=10),
    strays=st.lists(st.tuples(kinds, parts, stems, suffixes), max_size=2),
)
@settings(max_examples=100, deadline=None)
def test_any_folder_is_a_partition_or_an_error(
    tmp_path_factory: pytest.TempPathFactory,
    kind: tuple[str, str],
    pairs: list[tuple[str, str, str, str, str]],
    strays: list[tuple[tuple[str, str], str, str, str]],
) -> None:
    root = tmp_path_factory.mktemp("any")
    files = [root / kind[1] / strays_part / (stem + suffix) for kind, strays_part, stem, suffix in strays]
    for above, below, stem, suffix, word in pairs:
        files.append(root / above / kind[0] / below / f"{stem}.png")
        files.append(root / above / kind[1] / below / f"{stem}{word or '_gt' * (kind[0] == kind[1])}{suffix}")
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    try:
        dataset = open_dataset(root)
    except DatasetError:
        return
    found = [pair for part in dataset.splits.values() for pair in part]
    assert dataset.train
    assert dataset.validation
    assert len({pair.name.casefold() for pair in found}) == len(found)
    assert len({pair.image for pair in found}) == len(found)
    assert not {pair.image for pair in found} & {pair.mask for pair in found}
    assert open_dataset(root) == dataset


# Lists of names


def test_a_list_is_read_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("\ufeff# the training part\nimages/a.jpg\r\n\n  b  \np1\\c.PNG # blurred\nv1.2", encoding="utf-8")
    assert read_names(path) == ["images/a", "b", "p1/c", "v1.2"]
    path.write_text("# nothing\n\n")
    with pytest.raises(DatasetError, match=r"train\.txt lists no names"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"train\.txt cannot be read .*; write text, one name per line"):
        read_names(path)
    with pytest.raises(DatasetError, match=r"missing\.txt"):
        read_names(tmp_path / "missing.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])
def test_lists_and_tables_of_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    make_set(tmp_path, ["café", "größe", "c", "d"])
    (tmp_path / "train.txt").write_bytes("café.png\r\ngröße\r\n".encode(encoding))
    (tmp_path / "val.txt").write_bytes("c\nd\n".encode(encoding))
    dataset = open_dataset(tmp_path)
    assert (names(dataset.train), names(dataset.validation)) == (["café", "größe"], ["c", "d"])
    rows = ["image;mask", *(f"images\\{name}.png;masks/{name}.png" for name in ("café", "größe", "c"))]
    (tmp_path / "set.csv").write_bytes("\n".join(["sep=;", *rows]).encode(encoding))
    assert names(find_pairs(tmp_path / "set.csv")) == ["c", "café", "größe"]


def test_names_that_are_not_utf8_are_found_listed_and_written(tmp_path: Path) -> None:
    """As old systems and zip archives leave them: é is the one byte E9."""
    stems = [os.fsdecode(b"caf\xe9_%d" % i) for i in range(4)]
    try:
        make_set(tmp_path, stems)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert names(find_pairs(tmp_path)) == stems
    listed = b"caf\xe9_0.png\ncaf\xe9_1\n", "café_2\ncafé_3".encode()  # as ls writes it, and typed
    for name, content in zip(("train.txt", "val.txt"), listed, strict=True):
        (tmp_path / name).write_bytes(content)
    dataset = open_dataset(tmp_path)
    assert (names(dataset.train), names(dataset.validation)) == (stems[:2], stems[2:])
    rows = b"image,mask\nimages/caf\xe9_0.png,masks/caf\xe9_0.png\n" + "images/café_1.png,masks/café_1.png".encode()
    (tmp_path / "set.csv").write_bytes(rows)
    assert names(find_pairs(tmp_path / "set.csv")) == stems[:2]
    (tmp_path / "masks" / f"{stems[0]}.png").write_bytes(b"broken")
    report = check_dataset(dataset)
    assert os.fsencode(tmp_path / "masks" / f"{stems[0]}.png") in os.fsencode(str(report))


@pytest.mark.parametrize(
    "content",
    [
        *(b"\x00" * 100, b"image,mask\na\x00.png,b.png", b"image,mask\n" + b"x" * 200_000 + b",b.png", b"\xff\xfei"),
        *(b'image,mask\n"a.png,b.png', b"\xff" * 5000, b"image,mask\n" + b"z/" * 3000 + b",b.png", b"image,mask\ra,b"),
        b'"image\n","mask\n"\na,b',
    ],
)
def test_damaged_tables_and_lists_are_one_line(tmp_path: Path, content: bytes) -> None:
    for name in ("set.csv", "set.tsv"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=r"set\.[ct]sv") as caught:
            open_dataset(tmp_path / name)
        assert len(str(caught.value)) < 10_000
    (tmp_path / "list.txt").write_bytes(content)
    make_set(tmp_path, "abc")
    with pytest.raises(DatasetError, match=r"list\.txt"):
        open_dataset(tmp_path, train_list=tmp_path / "list.txt")


name_text = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="#/\\"), min_size=1)


@given(
    wanted=st.lists(name_text.filter(lambda n: n.strip(".") and Path(n).suffix == ""), min_size=1),
    ending=st.sampled_from(["\n", "\r\n"]),
    suffix=st.sampled_from(["", ".jpg", ".PNG"]),
    last=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_a_list_gives_back_its_names(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[str], ending: str, suffix: str, last: bool
) -> None:
    path = tmp_path_factory.mktemp("list") / "names.txt"
    text = ending.join(f"{name}{suffix}" for name in wanted) + (ending if last else "")
    path.write_bytes(text.encode("utf-8"))
    assert read_names(path) == wanted


def test_lists_beside_the_folders_divide_them(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    (tmp_path / "train.txt").write_text("a\nb\nc")
    (tmp_path / "val.txt").write_text("images/d.png\n")
    (tmp_path / "test.txt").write_text("e\n")
    (tmp_path / "notes.txt").write_text("hello\n")
    dataset = open_dataset(tmp_path)
    assert {part: names(pairs) for part, pairs in dataset.splits.items()} == {
        "train": [*"abc"],
        "validation": ["d"],
        "test": ["e"],
    }
    assert "test.txt, train.txt, val.txt, which leave out 1 pair" in dataset.layout
    (tmp_path / "valid.txt").write_text("f\n")
    with pytest.raises(DatasetError, match=r"val\.txt and .*valid\.txt both list the validation split"):
        open_dataset(tmp_path)


def test_lists_as_arguments(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    (tmp_path / "mine.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "theirs.txt").write_text("e\n")
    both = open_dataset(tmp_path, train_list=tmp_path / "mine.txt", val_list=tmp_path / "theirs.txt")
    assert (names(both.train), names(both.validation)) == ([*"abcd"], ["e"])
    train = open_dataset(tmp_path, train_list=str(tmp_path / "mine.txt"))
    assert sorted(names(train.train) + names(train.validation)) == [*"abcd"]
    val = open_dataset(tmp_path, val_list=tmp_path / "theirs.txt")
    assert (names(val.train), names(val.validation)) == ([*"abcdf"], ["e"])


def test_mistakes_in_lists_are_named(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    (tmp_path / "masks" / "f.png").unlink()
    (tmp_path / "train.txt").write_text("a\nb\nb\nzz\nf\nd\n")
    (tmp_path / "val.txt").write_text("d\n")
    dataset = open_dataset(tmp_path)
    unknown, twice = errors(dataset)
    assert "2 names in " in unknown
    assert unknown.endswith("add the files or take the name out: zz, f")
    assert twice == "1 name in the lists of two splits; take it out of one: d"
    # What no list asks for does no harm.
    unused, repeated = warnings(dataset)
    assert "1 image without a mask" in unused
    assert repeated.endswith("used once: b")
    assert names(dataset.train) == ["a", "b"]  # and not d, which is in both
    (tmp_path / "train.txt").write_text("see the wiki\n")
    with pytest.raises(DatasetError, match="none of its names, such as 'see the wiki'.*rename the file"):
        open_dataset(tmp_path)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_lists_put_every_pair_into_at_most_one_part(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    stems = [f"n{i}" for i in range(6)]
    items = [(f"{stem}.png", f"{stem}_m.png") for stem in stems]
    folder = tmp_path_factory.getbasetemp() / "listed"
    if not folder.exists():
        folder.mkdir()
        for image, mask in items:
            (folder / image).touch()
            (folder / mask).touch()
    lists = {}
    for part in ("train", "val"):
        chosen = data.draw(st.lists(st.sampled_from(stems), min_size=2), label=part)
        lists[f"{part}_list"] = folder / f"{part}.txt"
        lists[f"{part}_list"].write_text("\n".join(chosen))
    pairs = [(folder / image, folder / mask) for image, mask in items]
    wanted = set(lists["train_list"].read_text().split()) - set(lists["val_list"].read_text().split())
    if len(wanted) == 0:
        with pytest.raises(DatasetError, match="no pairs to train on"):
            open_dataset(pairs, **lists)  # type: ignore[arg-type]
        return
    dataset = open_dataset(pairs, **lists)  # type: ignore[arg-type]
    assert set(names(dataset.train)) == wanted
    assert set(names(dataset.validation)) == set(lists["val_list"].read_text().split())
    assert len(names(dataset.train)) == len(wanted)


# CSV files


def write_csv(path: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def test_a_csv_with_groups_and_parts(tmp_path: Path) -> None:
    rows = [["Image", "mask", "group", "split", "age"]]
    for i, part in enumerate(("train", "Training", "val", "test")):
        add_pair(tmp_path / f"x/{i}.png", tmp_path / f"y/{i}.png")
        rows.append([f"x/{i}.png", f"y/{i}.png", f"patient {i}", part, "50"])
    dataset = open_dataset(write_csv(tmp_path / "set.csv", rows))
    assert [len(part) for part in dataset.splits.values()] == [2, 1, 1]
    assert [pair.group for pair in dataset.train] == ["patient 0", "patient 1"]
    assert dataset.test[0].image == tmp_path / "x/3.png"
    assert dataset.problems == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_as_programs_write_it(tmp_path: Path, delimiter: str) -> None:
    add_pair(tmp_path / "a b, c.png", tmp_path / "a_m.png")
    add_pair(tmp_path / "x" / "a.png", tmp_path / "x" / "a_m.png")
    rows = [
        ["image_path", "mask_path"],
        ["a b, c.png", " a_m.png"],
        ["x\\a.png", str(tmp_path / "x/a_m.png")],
        ["", ""],
    ]
    path = write_csv(tmp_path / "set.csv", rows, delimiter)
    path.write_bytes("\ufeff".encode() + path.read_bytes())  # as Excel does
    assert sorted(matched(open_dataset(path)).items()) == [("a", "a_m.png"), ("a b, c", "a_m.png")]


def test_any_column_may_be_the_group(tmp_path: Path) -> None:
    rows = [["image", "mask", "hospital"]]
    for i in range(6):
        add_pair(tmp_path / f"{i}.png", tmp_path / f"{i}_m.png")
        rows.append([f"{i}.png", f"{i}_m.png", "north" if i < 3 else "south"])
    path = write_csv(tmp_path / "set.csv", rows)
    dataset = open_dataset(path, group_by="hospital")
    assert {len({p.group for p in part}) for part in (dataset.train, dataset.validation)} == {1}
    assert {p.group for p in open_dataset(path, group_by=r"\d").train} <= {*"012345"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("image,mask\n", "has no rows"),
        ("a.png,a_m.png\nb.png,b_m.png\n", "it must name 'image' and 'mask'"),
        ("image,mask\na.png,\n", "line 2 has no mask; fill it in"),
        ("image,mask\na.png,a_m.png\nb,b.png,b_m.png\n", "line 3 has 3 values for 2 columns"),
        (
            "image,mask,split\na.png,a_m.png,holdout\n",
            "line 2 has the split 'holdout'; it must be train, validation or",
        ),
        ("image,mask,group\na.png,a_m.png,\n", "line 2 has no group"),
        ("image,mask\na.png,a_m.png\n./a.png,b_m.png\n", "the image .*a.png is listed twice"),
        ("image,mask\nnone.png,no_m.png\n", "none of its files exists, such as .*none.png"),
        ('image,mask\n"a.png,a_m.png\n', "cannot be read as CSV"),
        ("image,mask,Mask\na.png,a_m.png,b\n", "two columns are named 'mask'"),
    ],
)
def test_mistakes_in_a_csv_are_named(tmp_path: Path, text: str, message: str) -> None:
    make_set(tmp_path, "ab", ".", "m")
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DatasetError, match=f"set.csv.*{message}"):
        open_dataset(tmp_path / "set.csv")


def test_missing_files_and_shared_masks_of_a_csv_are_listed(tmp_path: Path) -> None:
    for name in "abc":
        add_pair(tmp_path / f"{name}.png", tmp_path / f"{name}_m.png")
    path = write_csv(
        tmp_path / "set.csv",
        [["image", "mask"], ["a.png", "a_m.png"], ["b.png", "a_m.png"], ["c.png", "gone.png"]],
    )
    dataset = open_dataset(path)
    assert errors(dataset) == [f"1 file that does not exist; correct its path in set.csv: {tmp_path / 'gone.png'}"]
    assert "1 mask given for several images" in warnings(dataset)[0]


@given(
    cells=st.lists(
        st.tuples(name_text, name_text, name_text), min_size=2, max_size=6, unique_by=lambda r: r[0].casefold()
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
@settings(max_examples=40, deadline=None)
def test_a_csv_gives_back_its_cells(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]], delimiter: str
) -> None:
    from condseg_sdk.data.tables import _rows

    rows = [[*map(str, row)] for row in cells]
    path = write_csv(tmp_path_factory.mktemp("csv") / "set.csv", [["image", "mask", "group"], *rows], delimiter)
    columns, read = _rows(path)
    assert columns == ["image", "mask", "group"]
    assert [list(row.values()) for _, row in read] == rows


# Lists in Python


def test_pairs_in_python(tmp_path: Path) -> None:
    paths = [add_pair(tmp_path / f"{n}/1.png", tmp_path / f"{n}/1_m.png") for n in "abcd"]
    dataset = open_dataset([(str(image), mask) for image, mask in paths])
    assert sorted(matched(dataset)) == ["a/1", "b/1", "c/1", "d/1"]
    pairs = [Pair(f"x{i}", image, mask, group=str(i // 2)) for i, (image, mask) in enumerate(paths)]
    assert names(open_dataset(pairs).validation) in (["x0", "x1"], ["x2", "x3"])
    with pytest.raises(DatasetError, match="two pairs are named 'x0'"):
        open_dataset([pairs[0], Pair("x0", *paths[1])])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "an empty list holds no pairs"),
        (["a.png"], "'a.png' is not a pair"),
        ([("a.png", "b.png", "c.png")], "is not a pair; give \\(image, mask\\)"),
        ([("a.png", 3)], "is not a pair"),
        ([("a.png", "b.png")] * 2, "is listed twice"),
        ([("a.png", "b.png")], "none of its files exists"),
    ],
)
def test_mistakes_in_python_lists(items: list[object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(items)  # type: ignore[arg-type]


# Words and names


def test_words_in_names() -> None:
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


def test_unique_names_take_only_as_much_of_the_path_as_they_need() -> None:
    assert unique_names([Path("/d/a/1.png"), Path("/d/b/2.png")]) == ["1", "2"]
    assert unique_names([Path("/d/a/1.png"), Path("/d/b/1.png")]) == ["a/1", "b/1"]
    assert unique_names([Path("/d/1.png"), Path("/d/1.jpg")]) == ["1.png", "1.jpg"]
    assert unique_names([Path("1.png")]) == ["1"]


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "a\0b.json", "x" * 300 + ".csv", "\udce9.json", ""])
def test_any_text_is_a_path_that_does_not_exist(path: str) -> None:
    for masks in (None, path):
        with pytest.raises((DatasetError, OptionError)):
            open_dataset(path or "nowhere", masks=masks)
