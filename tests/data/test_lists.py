"""Lists of names divide a dataset, and mistakes in them are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condseg_sdk.data import check_dataset, find_pairs, open_dataset, read_names
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import errors, make_set, names, warnings


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
def test_lists_and_tables_are_read_in_common_encodings(tmp_path: Path, encoding: str) -> None:
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
def test_damaged_tables_and_lists_give_an_error_of_one_line(tmp_path: Path, content: bytes) -> None:
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
def test_a_list_is_read_back_as_it_was_written(
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


def test_lists_can_be_given_as_arguments(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    (tmp_path / "mine.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "theirs.txt").write_text("e\n")
    both = open_dataset(tmp_path, train_list=tmp_path / "mine.txt", val_list=tmp_path / "theirs.txt")
    assert (names(both.train), names(both.validation)) == ([*"abcd"], ["e"])
    train = open_dataset(tmp_path, train_list=str(tmp_path / "mine.txt"))
    assert sorted(names(train.train) + names(train.validation)) == [*"abcd"]
    val = open_dataset(tmp_path, val_list=tmp_path / "theirs.txt")
    assert (names(val.train), names(val.validation)) == ([*"abcdf"], ["e"])


def test_mistakes_in_lists_are_reported(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    (tmp_path / "masks" / "f.png").unlink()
    (tmp_path / "train.txt").write_text("a\nb\nb\nzz\nf\nd\n")
    (tmp_path / "val.txt").write_text("d\n")
    dataset = open_dataset(tmp_path)
    unknown, twice = errors(dataset)
    assert "2 names in " in unknown
    assert unknown.endswith("add the files or remove the name: zz, f")
    assert twice == "1 name in the lists of two splits; remove it from one: d"
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
def test_lists_put_every_pair_into_at_most_one_split(
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
