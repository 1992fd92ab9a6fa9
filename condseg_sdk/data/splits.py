"""Divides pairs into train, validation and test: as the data defines them, by lists, by groups, otherwise at random."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from condseg_sdk.data.names import duplicate_names, normalize_name, read_names, split_of_name
from condseg_sdk.data.pairs import SPLITS, Dataset, DiscoveredPairs, Pair, Problem, Split, problems_of
from condseg_sdk.errors import DatasetError, OptionError
from condseg_sdk.words import pluralize

__all__ = ["by_lists", "by_names", "distinct_names", "divide", "hold_out", "select", "with_groups"]

SMALL_SET = 200
SMALL_SET_FRACTION, FRACTION = 0.2, 0.1  # a tenth of a small set is too small to choose epoch and threshold


def hold_out(pairs: Sequence[Pair], fraction: float, *, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs at random into those to train on and those to hold out.

    Both keep the given order, neither is empty, and no group is divided.

    Args:
        pairs: At least two pairs; at least two groups if they have groups.
        fraction: Share of the pairs to hold out; with groups, as close to it as whole groups allow.
        seed: Seed of the random choice. The same seed gives the same split.

    Returns:
        The pairs to train on, and those held out.

    Raises:
        DatasetError: There are too few pairs or groups.
        OptionError: The fraction is not between 0 and 1.

    Example:
        >>> pairs = [Pair(name, Path(f"{name}.png"), Path(f"{name}_mask.png")) for name in "abcd"]
        >>> train, held_out = hold_out(pairs, 0.25, seed=0)
        >>> len(train), len(held_out)
        (3, 1)
    """
    if not 0 < fraction < 1:
        raise OptionError(f"val_fraction={fraction} must be between 0 and 1", option="val_fraction")
    if len(pairs) < 2:
        raise DatasetError(f"{pluralize(len(pairs), 'pair')}: at least one to train on and one to hold out are needed")
    count = min(max(round(len(pairs) * fraction), 1), len(pairs) - 1)
    if all(pair.group is None for pair in pairs):
        chosen = set(random.Random(seed).sample(range(len(pairs)), count))
    else:
        chosen = _whole_groups(pairs, count, random.Random(seed))
    return (
        [pair for i, pair in enumerate(pairs) if i not in chosen],
        [pair for i, pair in enumerate(pairs) if i in chosen],
    )


def _whole_groups(pairs: Sequence[Pair], count: int, rng: random.Random) -> set[int]:
    """Choose the indices of whole groups, about `count` of them."""
    members: dict[object, list[int]] = defaultdict(list)  # a pair without a group is a group of its own
    for i, pair in enumerate(pairs):
        members[i if pair.group is None else pair.group].append(i)
    if len(members) < 2:
        raise DatasetError(
            f"all {pluralize(len(pairs), 'pair')} belong to the group {pairs[0].group!r}: two or more are needed"
        )
    drawn = list(members.values())
    rng.shuffle(drawn)
    chosen: set[int] = set()
    for group in drawn[:-1]:
        if abs(len(chosen) + len(group) - count) < abs(len(chosen) - count):
            chosen.update(group)
    smallest = min(drawn, key=len)
    return chosen or set(smallest)


def with_groups(found: DiscoveredPairs, pattern: str) -> DiscoveredPairs:
    """Give each pair the group that a pattern finds in its name.

    Args:
        found: Pairs of a dataset.
        pattern: Regular expression. Its first capturing group is the pair's group, or the whole match if it has none.

    Raises:
        OptionError: The pattern is not a regular expression.
        DatasetError: The pattern does not match every name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise OptionError(
            f"group_by={pattern!r} is neither a regular expression ({error}) nor a column of a CSV file; "
            r"pass one for the part of a name that images of one group share, such as '^(\w+)_'",
            option="group_by",
        ) from error
    misfits: list[str] = []

    def grouped(pair: Pair) -> Pair:
        match = expression.search(pair.name)
        group = None if match is None else match[1 if expression.groups else 0]
        if not group:
            misfits.append(pair.name)
        return replace(pair, group=group)

    pairs = {split: [grouped(pair) for pair in items] for split, items in found.pairs.items()}
    if misfits:
        raise DatasetError(
            f"group_by={pattern!r} does not match {pluralize(len(misfits), 'name')}, such as {misfits[0]!r}; "
            "correct it, or name a column of the CSV file"
        )
    return replace(found, pairs=pairs)


def by_names(found: DiscoveredPairs) -> DiscoveredPairs:
    """Divide pairs by the split in their names (train_1, testA_1), if every name has one and some are for training."""
    if set(found.pairs) != {None}:
        return found
    splits: dict[Split | None, list[Pair]] = defaultdict(list)
    for pair in found.pairs[None]:
        splits[split_of_name(PurePosixPath(pair.name).name)].append(pair)
    if None in splits or "train" not in splits or len(splits) < 2:
        return found
    layout = f"{found.layout}; divided by the words their names begin with (train, test, ...)"
    return replace(found, pairs=dict(splits), layout=layout)


def by_lists(found: DiscoveredPairs, lists: Mapping[Split, Path]) -> DiscoveredPairs:
    """Divide pairs by list files.

    Args:
        found: Pairs of a dataset.
        lists: File of names for each split. Without one for training, all pairs that no list names are trained on.

    Raises:
        DatasetError: A list cannot be read, or none of its names has a pair.
    """
    pool = [pair for pairs in found.pairs.values() for pair in pairs]
    problems = [*found.problems, *(replace(problem, severity="warning") for problem in found.unmatched)]
    chosen: dict[Split | None, list[Pair]] = {}
    for split, file in lists.items():
        chosen[split], noticed = select(pool, read_names(file), source=str(file))
        problems += noticed
    problems += _in_two_splits(chosen)
    # A pair in two lists is kept out of training, so that no score is too good.
    taken: set[str] = set()
    for split in [split for split in ("test", "validation", "train") if split in chosen]:
        chosen[split] = [pair for pair in chosen[split] if pair.name not in taken]
        taken |= {pair.name for pair in chosen[split]}
    rest = [pair for pair in pool if pair.name not in taken]
    layout = f"{found.layout}; divided by {', '.join(file.name for file in lists.values())}"
    if "train" not in lists:
        chosen["train"] = rest
    elif rest:
        layout += f", which leave out {pluralize(len(rest), 'pair')}"
    return DiscoveredPairs(chosen, layout, tuple(problems), left_out=found.left_out)


def select(pool: Sequence[Pair], names: Sequence[str], *, source: str) -> tuple[list[Pair], list[Problem]]:
    """Select pairs by name.

    Args:
        pool: Pairs to select from.
        names: Names without extension, which may begin with folders.
        source: Where the names come from, for messages.

    Returns:
        The pairs in the order of the names, and the problems with the names.

    Raises:
        DatasetError: None of the names has a pair.
    """
    known = {normalize_name(pair.name): pair for pair in pool}
    chosen: dict[str, Pair] = {}
    missing, again = [], []
    for entry in names:
        pair = next((known[key] for key in _endings(entry) if key in known), None)
        if pair is None:
            missing.append(entry)
        elif pair.name in chosen:
            again.append(entry)
        else:
            chosen[pair.name] = pair
    if not chosen:
        raise DatasetError(
            f"{source}: none of its names, such as {names[0]!r}, has an image with a mask; correct them, or rename the "
            "file if it is not a list"
        )
    remedy = "add the files or remove the name"
    problems = problems_of("error", "name", f"in {source} without an image with a mask; {remedy}", missing)
    problems += problems_of("warning", "name", f"repeated in {source}, used once", again)
    return list(chosen.values()), problems


def _endings(entry: str) -> Iterator[str]:
    """Yield a name without its first folders: a list may be written from any folder above."""
    folders = PurePosixPath(normalize_name(entry)).parts
    return ("/".join(folders[i:]) for i in range(len(folders)))


def _in_two_splits(chosen: Mapping[Split | None, Sequence[Pair]]) -> list[Problem]:
    counts = Counter(pair.name for pairs in chosen.values() for pair in pairs)
    both = [name for name, count in counts.items() if count > 1]
    return problems_of("error", "name", "in the lists of two splits; remove it from one", both)


def divide(found: DiscoveredPairs, *, val_fraction: float | None, seed: int) -> Dataset:
    """Make a dataset of the pairs that were found, with a validation split held out if the data defines none.

    Args:
        found: Pairs of a dataset, by the split that the data defines.
        val_fraction: Share of the training pairs to hold out; default: `SMALL_SET_FRACTION` if there are fewer than
            `SMALL_SET` pairs, otherwise `FRACTION`.
        seed: Seed of the random choice.

    Raises:
        DatasetError: There are too few pairs to train on or to hold out.
        OptionError: The fraction is not between 0 and 1.
    """
    pairs = found.pairs
    problems = [*found.problems, *found.unmatched]
    train, layout = pairs.get("train", []), found.layout
    if None in pairs:
        if train:
            message = "outside of train, validation and test, not used; move it into one of them"
            problems += problems_of("warning", "pair", message, (pair.name for pair in pairs[None]))
        train = train or pairs[None]
    held_out = pairs.get("validation", [])
    if not train:
        raise DatasetError(
            f"{found.layout}: no pairs to train on; only {', '.join(str(split) for split in pairs)} was found"
        )
    if not held_out:
        if len(train) < 2:
            why = next((f"; {problem.line()}" for problem in problems if problem.severity == "error"), "")
            raise DatasetError(
                f"{layout}: {pluralize(len(train), 'pair')}: at least one to train on and one to hold out are "
                f"needed{why}"
            )
        default = SMALL_SET_FRACTION if len(train) < SMALL_SET else FRACTION
        train, held_out = hold_out(train, default if val_fraction is None else val_fraction, seed=seed)
        grouped = " by group" if train[0].group is not None else ""
        layout += f"; {len(held_out)} of {len(train) + len(held_out)} training pairs held out at random{grouped}"
    dataset = Dataset(
        train, held_out, pairs.get("test", []), layout, left_out=found.left_out, val_fraction=val_fraction
    )
    return replace(dataset, problems=(*problems, *_divided_groups(dataset)))


def distinct_names(found: DiscoveredPairs) -> DiscoveredPairs:
    """Prefix names with their split if two splits have an image with the same name."""
    if not duplicate_names(pair.name for items in found.pairs.values() for pair in items):
        return found
    pairs = {
        split: [replace(pair, name=f"{split or 'other'}/{pair.name}") for pair in items]
        for split, items in found.pairs.items()
    }
    return replace(found, pairs=pairs)


def _divided_groups(dataset: Dataset) -> list[Problem]:
    splits: dict[str, set[Split]] = defaultdict(set)
    for split in SPLITS:
        for pair in dataset.splits[split]:
            if pair.group is not None:
                splits[pair.group].add(split)
    divided = [f"{group} ({', '.join(sorted(where))})" for group, where in splits.items() if len(where) > 1]
    message = "divided between splits, which makes metrics too optimistic; move each group into one split"
    return problems_of("error", "group", message, divided)
