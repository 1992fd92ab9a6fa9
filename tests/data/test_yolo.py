"""YOLO segmentation sets: data.yaml, images and text files of polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from condseg_sdk.data import check_dataset, load_mask, open_dataset
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import SIZE, picture, save

BOX = "0 0.25 0.5 0.75 0.5 0.75 1.0 0.25 1.0"  # x 0.25 to 0.75, y 0.5 to 1, as a polygon
YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: polyp\n"


def yolo(folder: Path, labels: dict[str, str], yaml: str = YAML) -> Path:
    """A set with an image and a label file for each "split/name"."""
    for name, text in labels.items():
        save(folder / "images" / f"{name}.png", picture(name))
        file = folder / "labels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "data.yaml").write_text(yaml)
    return folder


def errors(folder: Path) -> list[str]:
    return [problem.line() for problem in open_dataset(folder).problems if problem.severity == "error"]


def test_a_set_is_read_with_its_own_division_from_its_folder_and_from_data_yaml(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a": BOX, "train/b": BOX, "val/c": BOX})
    for dataset in (open_dataset(folder), open_dataset(folder / "data.yaml")):
        assert [pair.name for pair in dataset.train] == ["a", "b"]
        assert [pair.name for pair in dataset.validation] == ["c"]
        assert dataset.layout == "YOLO: data.yaml"
        assert dataset.problems == ()
        assert check_dataset(dataset).errors == ()
    assert open_dataset(folder).left_out == ""


def test_shares_of_width_and_height_become_pixels_of_the_image(tmp_path: Path) -> None:
    pair = open_dataset(yolo(tmp_path, {"train/a": BOX, "train/b": "", "val/c": BOX})).train[0]
    expected = np.zeros(SIZE, bool)  # 20 x 30
    expected[10:20, 8:22] = True
    drawn = load_mask(pair.mask)
    assert drawn.shape == SIZE
    assert (drawn != expected).sum() <= 20  # a rasterizer may count a border pixel as inside or as outside
    assert drawn[10:20, 9:21].all()


def test_an_empty_label_file_means_that_there_is_nothing_to_find(tmp_path: Path) -> None:
    dataset = open_dataset(yolo(tmp_path, {"train/a": BOX, "train/b": " \n", "val/c": BOX}))
    assert not load_mask(dataset.train[1].mask).any()


def test_several_lines_are_merged_and_several_classes_are_reported(tmp_path: Path) -> None:
    text = f"{BOX}\n1 0.0 0.0 0.1 0.0 0.1 0.1 0.0 0.1\n"
    yaml = YAML.replace("  0: polyp", "  - polyp\n  - tool")
    dataset = open_dataset(yolo(tmp_path, {"train/a": text, "val/c": BOX}, yaml))
    mask = load_mask(dataset.train[0].mask)
    assert mask[0, 0]
    assert mask[15, 15]
    assert dataset.problems[0].line().startswith("2 classes, all of which are foreground; choose with classes=")
    assert dataset.problems[0].files == ("polyp", "tool")
    (tools,) = open_dataset(dataset.source or "", classes=["tool"]).train
    assert load_mask(tools.mask)[0, 0]
    assert not load_mask(tools.mask)[15, 15]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a box, not a polygon; export segmentation labels"),
        ("0 0.1 0.1 0.2", "has 3 coordinates, not three or more points"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 7 coordinates"),
        ("0 12 8 40 8 40 30", "has coordinates far outside of 0 to 1; they must be fractions"),
        ("0 nan 0.1 0.2 0.2 0.3 0.3", "has coordinates far outside"),
        ("polyp 0.1 0.1 0.2 0.2 0.3 0.3", "is not a class and its polygon"),
        ("0 0.1 0.1 0.2 x 0.3 0.3", "is not a class and its polygon (could not convert string to float: 'x')"),
    ],
)
def test_a_damaged_line_costs_its_image_and_is_named_with_file_and_number(
    tmp_path: Path, line: str, reason: str
) -> None:
    folder = yolo(tmp_path, {"train/a": f"{BOX}\n\n{line}\n", "train/b": BOX, "val/c": BOX})
    (error,) = errors(folder)
    assert error.startswith("1 label file that cannot be used; correct it, or export it again: ")
    assert f"{folder / 'labels' / 'train' / 'a.txt'}: line 3 {reason}" in error
    assert [pair.name for pair in open_dataset(folder).train] == ["b"]


def test_an_image_without_a_label_file_is_an_error_and_not_an_empty_mask(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a": BOX, "train/b": BOX, "val/c": BOX})
    (folder / "labels" / "train" / "b.txt").unlink()
    (error,) = errors(folder)
    assert error.startswith("1 image without a label file; add one (an empty file says that there is nothing to find)")
    assert str(folder / "images" / "train" / "b.png") in error


@pytest.mark.parametrize(
    "yaml",
    [
        "path: /home/somebody/datasets/set\ntrain: images/train\nval: images/val\nnames: [polyp]\n",
        "train: ../images/train\nval: ../images/val\nnc: 1\nnames: ['polyp']\n",  # as Roboflow writes it
        "train: [images/train]\nval: list.txt\nnames: {0: polyp}\n",
    ],
)
def test_paths_in_data_yaml_are_found_as_its_programs_write_them(tmp_path: Path, yaml: str) -> None:
    folder = yolo(tmp_path, {"train/a": BOX, "val/c": BOX}, yaml)
    (folder / "list.txt").write_text("./images/val/c.png\n")
    dataset = open_dataset(folder)
    assert [[pair.name for pair in pairs] for pairs in (dataset.train, dataset.validation)] == [["a"], ["c"]]
    assert dataset.problems == ()


def test_folders_that_do_not_exist_are_named(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a": BOX}, "train: images/missing\nnames: [polyp]\n")
    with pytest.raises(DatasetError, match=r"1 entry of .*data\.yaml that cannot be found.*: train: images/missing"):
        open_dataset(folder / "data.yaml")


def test_a_list_that_cannot_be_read_is_named_with_its_data_yaml(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a": BOX}, "train: /dev/null\nnames: [polyp]\n")
    with pytest.raises(DatasetError, match=r"1 list of .*data\.yaml that cannot be used.*: train: /dev/null is not a"):
        open_dataset(folder / "data.yaml")


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    "content",
    [
        "train: [",
        "a: &a [*a, *a]\nb: !!python/object:os.system x",
        "[" * 3000,
        "\0",
        f"{BOMB}names: *a9\ntrain: images/train\n",
    ],
)
def test_a_damaged_data_yaml_ends_in_one_line(tmp_path: Path, content: str) -> None:
    folder = yolo(tmp_path, {"train/a": BOX}, content)
    with pytest.raises(DatasetError, match=r"data\.yaml"):
        open_dataset(folder / "data.yaml")


def test_other_yaml_files_do_not_matter(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a": BOX, "val/c": BOX})
    (folder / "environment.yml").write_text("dependencies: [python]\n")
    assert len(open_dataset(folder).train) == 1


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("path: .\ntrain: images/train\n", "data.yaml lacks names, the list of classes; add it"),
        ("train: images/train\nval: images/val\n", "data.yaml lacks names"),
        ("path: .\nnames: [polyp]\n", "data.yaml lacks train, val and test, the folders of images; add one"),
    ],
)
def test_what_data_yaml_lacks_is_named(tmp_path: Path, yaml: str, words: str) -> None:
    folder = yolo(tmp_path, {"train/a": BOX, "train/b": BOX, "val/c": BOX}, yaml)
    for source in (folder, folder / "data.yaml"):
        with pytest.raises(DatasetError, match=words):
            open_dataset(source)


def test_following_the_remedy_for_data_yaml_helps(tmp_path: Path) -> None:
    labels = {"train/a": BOX, "train/b": BOX, "val/c": BOX}
    folder = yolo(tmp_path, labels, "train: images/train\nval: images/val\nnames: [polyp]\n")
    assert len(open_dataset(folder / "data.yaml").train) == 2
