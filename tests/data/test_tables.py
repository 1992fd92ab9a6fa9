"""Pairs in CSV files and in Python lists, and mistakes in them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condseg_sdk.data import Pair, open_dataset
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import add_pair, errors, make_set, matched, names, warnings

name_text = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="#/\\"), min_size=1)


def write_csv(path: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def test_a_csv_with_groups_and_splits(tmp_path: Path) -> None:
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
def test_a_csv_is_read_as_programs_write_it(tmp_path: Path, delimiter: str) -> None:
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


def test_any_column_can_be_the_group(tmp_path: Path) -> None:
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
def test_mistakes_in_a_csv_are_reported(tmp_path: Path, text: str, message: str) -> None:
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
    assert errors(dataset) == [f"1 file that cannot be found; correct its path in set.csv: {tmp_path / 'gone.png'}"]
    assert "1 mask given for several images" in warnings(dataset)[0]


@given(
    cells=st.lists(
        st.tuples(name_text, name_text, name_text), min_size=2, max_size=6, unique_by=lambda r: r[0].casefold()
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
@settings(max_examples=40, deadline=None)
def test_a_csv_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]], delimiter: str
) -> None:
    from condseg_sdk.data.tables import _rows

    rows = [[*map(str, row)] for row in cells]
    path = write_csv(tmp_path_factory.mktemp("csv") / "set.csv", [["image", "mask", "group"], *rows], delimiter)
    columns, read = _rows(path)
    assert columns == ["image", "mask", "group"]
    assert [list(row.values()) for _, row in read] == rows


def test_pairs_are_given_as_paths_or_pair_objects(tmp_path: Path) -> None:
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
        ([], "an empty list contains no pairs"),
        (["a.png"], "'a.png' is not a pair"),
        ([("a.png", "b.png", "c.png")], "is not a pair; pass \\(image, mask\\)"),
        ([("a.png", 3)], "is not a pair"),
        ([("a.png", "b.png")] * 2, "is listed twice"),
        ([("a.png", "b.png")], "none of its files exists"),
    ],
)
def test_mistakes_in_python_lists_are_reported(items: list[object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(items)  # type: ignore[arg-type]
