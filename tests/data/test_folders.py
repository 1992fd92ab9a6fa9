"""Folders of images and masks in the layouts that people have, and mistakes in them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condseg_sdk.data import check_dataset, find_pairs, open_dataset
from condseg_sdk.errors import DatasetError, OptionError
from tests.helpers.datasets import add_pair, errors, make_set, matched, names, picture, save, warnings


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
def test_folders_are_recognized_by_words_in_their_names(tmp_path: Path, images: str, masks: str) -> None:
    dataset = open_dataset(make_set(tmp_path, "abc", images, masks))
    assert matched(dataset) == {"a": "a.png", "b": "b.png", "c": "c.png"}
    assert len(dataset.validation) == 1
    assert dataset.problems == ()
    assert Path(images).name in dataset.layout or images == "."


@pytest.mark.parametrize("order", ["{part}/{kind}", "{kind}/{part}", "{part}_{kind}", "set/{part}/{kind}"])
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "Validation", "Testing")])
def test_splits_are_recognized_above_below_and_in_the_folders_names(
    tmp_path: Path, order: str, words: tuple[str, ...]
) -> None:
    for word, stems in zip(words, ("abcd", "ef", "g"), strict=True):
        make_set(tmp_path, stems, order.format(part=word, kind="images"), order.format(part=word, kind="masks"))
    dataset = open_dataset(tmp_path)
    assert [[name[-1] for name in names(part)] for part in dataset.splits.values()] == [[*"abcd"], [*"ef"], ["g"]]
    assert dataset.problems == ()


def test_the_same_name_in_two_splits_means_two_images(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        make_set(tmp_path / part, ["1", "2"])
    dataset = open_dataset(tmp_path)
    assert names(dataset.train) == ["train/1", "train/2"]
    assert names(dataset.validation) == ["validation/1", "validation/2"]


def test_a_missing_validation_split_is_held_out_from_training_and_never_from_test(tmp_path: Path) -> None:
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
def test_masks_named_with_a_word_are_recognized(tmp_path: Path, image: str, mask: str) -> None:
    add_pair(tmp_path / "images" / image, tmp_path / "masks" / mask)
    add_pair(tmp_path / "images" / "other.png", tmp_path / "masks" / "other.png")
    assert (tmp_path / "masks" / mask) in [pair.mask for pair in find_pairs(tmp_path)]


def test_an_exact_name_comes_before_one_with_a_word(tmp_path: Path) -> None:
    make_set(tmp_path, ["a", "a_mask"])
    assert {p.name: p.mask.name for p in find_pairs(tmp_path)} == {"a": "a.png", "a_mask": "a_mask.png"}  # type: ignore[union-attr]


def test_unicode_forms_of_macos_and_linux_match(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "Ménière") for form in ("NFC", "NFD"))
    assert one != two
    add_pair(tmp_path / "images" / f"{one}.png", tmp_path / "masks" / f"{two}.png")
    assert len(find_pairs(tmp_path)) == 1


def test_glas_is_read_as_downloaded(tmp_path: Path) -> None:
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


def test_isic_is_read_as_downloaded(tmp_path: Path) -> None:
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


def test_masks_can_be_in_another_folder(tmp_path: Path) -> None:
    make_set(tmp_path, ["a", "b"], "pictures of skin", "elsewhere/drawn")
    dataset = open_dataset(tmp_path / "pictures of skin", masks=tmp_path / "elsewhere" / "drawn")
    assert sorted(matched(dataset)) == ["a", "b"]
    # Inside the folder of images, too, and with other masks near it.
    make_set(tmp_path / "all", ["a", "b"], "images", "second reader")
    make_set(tmp_path / "all", ["a", "b"], "images", "masks")
    inside = open_dataset(tmp_path / "all", masks=tmp_path / "all" / "second reader")
    assert {p.mask.parent.name for p in (*inside.train, *inside.validation)} == {"second reader"}  # type: ignore[union-attr]


def test_one_folder_of_masks_is_shared_by_the_splits_of_images(tmp_path: Path) -> None:
    for part, stems in (("train", "abc"), ("val", "d")):
        make_set(tmp_path, stems, f"images/{part}", "masks")
    dataset = open_dataset(tmp_path)
    assert (names(dataset.train), names(dataset.validation)) == ([*"abc"], ["d"])
    assert dataset.problems == ()


def test_unused_folders_are_reported(tmp_path: Path) -> None:
    make_set(tmp_path / "train", "abc")
    save(tmp_path / "test" / "images" / "x.png", picture("x"))  # a competition's test part: no masks
    save(tmp_path / "overlays" / "a.png", picture("a"))
    dataset = open_dataset(tmp_path)
    assert warnings(dataset) == [
        "2 folders not used, since the name does not match a folder of images with masks: overlays/, test/images/"
    ]
    assert len(dataset.train) + len(dataset.validation) == 3
    assert dataset.test == []


def test_hidden_files_and_files_of_macos_are_left_out(tmp_path: Path) -> None:
    make_set(tmp_path, "abc")
    for stray in ("images/._a.png", "__MACOSX/images/a.png", ".cache/images/a.png", "images/Thumbs.db"):
        (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stray).write_bytes(b"x")
    assert names(find_pairs(tmp_path)) == [*"abc"]


def test_links_are_followed_and_cycles_end(tmp_path: Path) -> None:
    real = make_set(tmp_path / "real", "abc")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "images").symlink_to(real / "images", target_is_directory=True)
    (linked / "masks").symlink_to(real / "masks", target_is_directory=True)
    assert names(find_pairs(linked)) == [*"abc"]
    (linked / "up").symlink_to(tmp_path, target_is_directory=True)
    open_dataset(linked)


@pytest.mark.parametrize("depth", [5, 12])
def test_folders_are_found_at_any_depth(tmp_path: Path, depth: int) -> None:
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
    for name in ("images/x.nii", "images/y.nii", "images/clip.mp4", "notes.docx", "images/.hidden.png", "train.txt"):
        (tmp_path / name).write_text("a\nb\nc")
    save(tmp_path / "images" / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_XL.png", picture("thumb"))
    save(tmp_path / "masks" / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_XL.png", picture("thumb"))
    dataset = open_dataset(tmp_path)
    expected = "2 .nii files, 2 folders named @eaDir, 1 .docx file, 1 .mp4 file, 1 hidden file"
    assert dataset.left_out == expected
    assert f"left out {expected}" in str(check_dataset(dataset)).splitlines()
    assert sum(len(part) for part in dataset.splits.values()) == 3


def test_files_of_unsupported_formats_are_counted_by_their_suffix(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii", "c.mp4"):
        (tmp_path / name).write_text("a")
    with pytest.raises(DatasetError, match=r"contains no images \(left out: 2 \.nii files, 1 \.mp4 file\); images are"):
        open_dataset(tmp_path)


def test_unmatched_images_and_masks_are_all_listed_with_what_to_do(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    for name in "ab":
        (tmp_path / "masks" / f"{name}.png").unlink()
    (tmp_path / "images" / "f.png").unlink()
    dataset = open_dataset(tmp_path)
    images, masks = dataset.problems
    assert images.message.startswith("2 images without a mask with the same name; add an all-black mask")
    assert images.files == (str(tmp_path / "images/a.png"), str(tmp_path / "images/b.png"))
    assert masks.message.startswith("1 mask without an image with the same name; add the image")
    assert masks.files == (str(tmp_path / "masks/f.png"),)
    with pytest.raises(DatasetError, match=r"2 images without .*images/a\.png"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("second", ["a.jpg", "A.png"])
def test_two_files_with_the_same_name_are_reported(tmp_path: Path, kind: str, second: str) -> None:
    make_set(tmp_path, "abc")
    save(tmp_path / kind / second, picture(second))
    if len([*(tmp_path / kind).iterdir()]) == 3:
        pytest.skip("this file system knows no case")
    (message,) = errors(open_dataset(tmp_path))
    assert "1 name of several files" in message
    assert "keep one" in message
    assert second in message


def test_two_file_formats_of_one_dataset_are_not_read_twice(tmp_path: Path) -> None:
    for form in ("PNG", "TIF"):
        make_set(tmp_path, ["1", "2"], f"{form}/Original", f"{form}/Ground Truth")
    message = errors(open_dataset(tmp_path))[0]
    assert "2 names of several files" in message
    assert "PNG/Original/1.png and " in message
    assert len(find_pairs(tmp_path / "TIF")) == 2


def test_two_folders_of_masks_are_an_error(tmp_path: Path) -> None:
    make_set(tmp_path, "ab")
    make_set(tmp_path, "ab", "images", "labels")
    assert "2 names of several files" in errors(open_dataset(tmp_path))[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "contains no images"),
        ({"images": ["a.png"]}, "no masks were recognized: put them into a folder named masks/"),
        ({"masks": ["a.png"]}, "but no images; put them into a folder named images/"),
        ({"images": ["a.png"], "masks": ["z.png"]}, "images are named like a.png, masks like z.png"),
        ({"test/images": ["a.png"], "test/masks": ["a.png"]}, "no pairs to train on; only test was found"),
        ({"images": ["a.png"], "masks": ["a.png"]}, "1 pair: at least one to train on and one to hold out"),
    ],
)
def test_a_folder_without_a_dataset_is_refused_with_a_remedy(
    tmp_path: Path, files: dict[str, list[str]], message: str
) -> None:
    for folder, stems in files.items():
        for stem in stems:
            save(tmp_path / folder / stem, picture(stem))
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)


def test_paths_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist; check the path"):
        open_dataset(tmp_path / "nowhere")
    make_set(tmp_path, "ab")
    with pytest.raises(DatasetError, match=r"nothing does not exist"):
        open_dataset(tmp_path / "images", masks=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty contains no masks"):
        open_dataset(tmp_path / "images", masks=tmp_path / "empty")
    (tmp_path / "set.zip").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"set\.zip is neither a folder nor a file named \.csv, \.tsv, \.json"):
        open_dataset(tmp_path / "set.zip")


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    make_set(tmp_path, "ab")
    with pytest.raises(OptionError, match="needs a folder of images as data"):
        open_dataset(tmp_path / "set.csv", masks=tmp_path)
    with pytest.raises(OptionError, match=r"val_fraction=1\.5 must be a number between 0 and 1"):
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
def test_any_folder_gives_disjoint_splits_or_an_error(
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


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "a\0b.json", "x" * 300 + ".csv", "\udce9.json", ""])
def test_any_string_can_be_a_path_that_does_not_exist(path: str) -> None:
    for masks in (None, path):
        with pytest.raises((DatasetError, OptionError)):
            open_dataset(path or "nowhere", masks=masks)
