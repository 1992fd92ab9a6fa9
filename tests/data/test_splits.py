"""Splits: a partition that follows from the seed, near to what was asked for, with no group divided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condseg_sdk.data import Pair, hold_out, open_dataset
from condseg_sdk.errors import DatasetError, OptionError
from tests.helpers.datasets import add_pair, make_set


def pairs_of(groups: list[str | None]) -> list[Pair]:
    return [Pair(f"n{i}", Path(f"n{i}.png"), Path(f"n{i}_m.png"), group) for i, group in enumerate(groups)]


group_lists = st.one_of(
    st.lists(st.none(), min_size=2, max_size=60),
    st.lists(st.sampled_from([*"abcdefgh"]), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1),
    st.lists(st.sampled_from([*"abc", None]), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1),
)


@given(groups=group_lists, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_hold_out_is_a_partition_that_divides_no_group(groups: list[str | None], fraction: float, seed: int) -> None:
    pairs = pairs_of(groups)
    train, held_out = hold_out(pairs, fraction, seed=seed)
    assert train
    assert held_out
    assert sorted([*train, *held_out], key=pairs.index) == pairs
    assert [*train] == sorted(train, key=pairs.index)
    assert not {p.group for p in train} & {p.group for p in held_out} - {None}
    assert hold_out(pairs, fraction, seed=seed) == (train, held_out)


@given(sizes=st.lists(st.integers(1, 8), min_size=4, max_size=30), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_held_out_groups_are_close_to_the_requested_share(sizes: list[int], seed: int) -> None:
    pairs = pairs_of([str(i) for i, size in enumerate(sizes) for _ in range(size)])
    _, held_out = hold_out(pairs, 0.3, seed=seed)
    assert abs(len(held_out) - 0.3 * len(pairs)) <= max(sizes)


def test_seeds_give_different_splits_of_the_requested_share() -> None:
    pairs = pairs_of([None] * 100)
    splits = {tuple(p.name for p in hold_out(pairs, 0.2, seed=seed)[1]) for seed in range(5)}
    assert len(splits) == 5
    assert {len(split) for split in splits} == {20}


def test_the_split_is_the_same_as_in_earlier_versions() -> None:
    """Runs that were begun must find their split again, and figures of held-out parts must keep their meaning."""
    assert [p.name for p in hold_out(pairs_of([None] * 20), 0.2, seed=0)[1]] == ["n1", "n8", "n12", "n13"]


def test_too_few_pairs_and_groups_are_refused() -> None:
    with pytest.raises(DatasetError, match="1 pair: at least one to train on and one to hold out"):
        hold_out(pairs_of([None]), 0.5, seed=0)
    with pytest.raises(DatasetError, match="all 3 pairs belong to the group 'p1': two or more are needed"):
        hold_out(pairs_of(["p1"] * 3), 0.5, seed=0)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="must be between 0 and 1"):
            hold_out(pairs_of([None] * 3), fraction, seed=0)


def test_a_pattern_groups_by_its_capturing_group_or_the_whole_match(tmp_path: Path) -> None:
    make_set(tmp_path, ["p1_a", "p1_b", "p2_a", "p3_a"])
    for pattern in (r"^(p\d)_", r"p\d", r"^(p\d)_([ab])"):
        dataset = open_dataset(tmp_path, group_by=pattern)
        assert {p.name: p.group for part in dataset.splits.values() for p in part} == {
            "p1_a": "p1",
            "p1_b": "p1",
            "p2_a": "p2",
            "p3_a": "p3",
        }
        assert "by group" in dataset.layout


def test_a_group_divided_by_the_data_itself_is_an_error(tmp_path: Path) -> None:
    make_set(tmp_path / "train", ["p1_a", "p2_a"])
    make_set(tmp_path / "val", ["p1_b", "p3_a"])
    (problem,) = open_dataset(tmp_path, group_by=r"^p\d").problems
    assert problem.severity == "error"
    assert problem.line().startswith("1 group divided between splits")
    assert problem.files == ("p1 (train, validation)",)


def test_pairs_outside_of_the_splits_are_not_used(tmp_path: Path) -> None:
    make_set(tmp_path / "train", [*"abcd"])
    make_set(tmp_path, ["x"])
    dataset = open_dataset(tmp_path)
    (problem,) = dataset.problems
    assert problem.line() == "1 pair outside of train, validation and test, not used; move it into one of them: x"
    assert "x" not in [p.name for part in dataset.splits.values() for p in part]


def test_names_that_begin_with_splits_divide_only_if_all_do(tmp_path: Path) -> None:
    make_set(tmp_path / "all", ["train_1", "train_2", "train_3", "test_1"])
    assert [len(part) for part in open_dataset(tmp_path / "all").splits.values()] == [2, 1, 1]
    make_set(tmp_path / "some", ["train_1", "train_2", "test_1", "polyp"])
    assert len(open_dataset(tmp_path / "some").test) == 0
    # What was listed by hand is what was meant.
    paths = [add_pair(tmp_path / f"{n}.png", tmp_path / f"{n}_m.png") for n in ("train_1", "train_2", "test_1")]
    assert open_dataset(paths).test == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("group_by", 3, "group_by=3 must be a string"),
        ("group_by", "[", "is neither a regular expression"),
        ("val_fraction", "x", "val_fraction='x' must be a number between 0 and 1"),
        ("train_list", ["a"], r"train_list=\['a'\] must be a path"),
        ("val_list", 3, "val_list=3 must be a path"),
        ("masks", 3, "masks=3 must be a path"),
        ("seed", "x", "seed='x' must be a whole number"),
    ],
)
def test_options_of_the_wrong_type_are_named(tmp_path: Path, option: str, value: Any, message: str) -> None:
    make_set(tmp_path, ["a", "b", "c"])
    with pytest.raises(OptionError, match=message) as caught:
        open_dataset(tmp_path, **{option: value})
    assert caught.value.option == option


@pytest.mark.parametrize("data", ["", None, 3, {"a": 1}])
def test_data_of_the_wrong_type_is_refused(data: Any) -> None:
    with pytest.raises(OptionError, match="data") as caught:
        open_dataset(data)
    assert caught.value.option == "data"
