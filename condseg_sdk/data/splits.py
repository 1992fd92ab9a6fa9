"""Dividing pairs into training, validation and test: by what the data says, by lists, by groups, else at random."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from condseg_sdk.data.names import duplicate_names, name_split, normalize_name, read_names
from condseg_sdk.data.pairs import SPLITS, Dataset, DiscoveredPairs, Pair, Problem, Split, pluralize, problems_of
from condseg_sdk.errors import DatasetError, OptionError

__all__ = ["by_lists", "by_names", "distinct_names", "divide", "hold_out", "select", "with_groups"]

SMALL_SET = 200
SMALL_SET_FRACTION, FRACTION = 0.2, 0.1  # a tenth of a small set would choose epoch and threshold by chance


def hold_out(pairs: Sequence[Pair], fraction: float, *, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split into (training, held out) at random; both keep the given order, neither is empty, no group is divided.

    Args:
        pairs: at least two, of two groups where they have any.
        fraction: of the pairs to hold out; with groups as near to it as whole groups allow.
        seed: the same seed gives the same split.

    Raises:
        DatasetError: there are too few pairs or groups.
        OptionError: the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"val_fraction={fraction} must lie between 0 and 1")
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
    """Indices of whole groups, about `count`: groups are drawn one by one and kept while that comes nearer to it."""
    members: dict[object, list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        members[i if pair.group is None else pair.group].append(i)
    if len(members) < 2:
        raise DatasetError(f"all {len(pairs)} pairs belong to the group {pairs[0].group!r}: two or more are needed")
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
        pattern: a regular expression; its first bracket is the group, or all of it where it has none.

    Raises:
        OptionError: it is no regular expression.
        DatasetError: it does not fit some names.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise OptionError(
            f"group_by={pattern!r} is no regular expression ({error}) and no column of a CSV file"
        ) from error
    misfits: list[str] = []

    def grouped(pair: Pair) -> Pair:
        match = expression.search(pair.name)
        group = None if match is None else match[1 if expression.groups else 0]
        if not group:
            misfits.append(pair.name)
        return replace(pair, group=group)

    pairs = {part: [grouped(pair) for pair in items] for part, items in found.pairs.items()}
    if misfits:
        raise DatasetError(
            f"group_by={pattern!r} does not match {pluralize(len(misfits), 'name')}, such as {misfits[0]!r}; correct it"
        )
    return replace(found, pairs=pairs)


def by_names(found: DiscoveredPairs) -> DiscoveredPairs:
    """The parts that names begin with (train_1, testA_1), where every one does and some are for training."""
    if set(found.pairs) != {None}:
        return found
    parts: dict[Split | None, list[Pair]] = defaultdict(list)
    for pair in found.pairs[None]:
        parts[name_split(PurePosixPath(pair.name).name)].append(pair)
    if None in parts or "train" not in parts or len(parts) < 2:
        return found
    layout = f"{found.layout}; divided by the words their names begin with (train, test, ...)"
    return replace(found, pairs=dict(parts), layout=layout)


def by_lists(found: DiscoveredPairs, lists: Mapping[Split, Path]) -> DiscoveredPairs:
    """The parts that list files name. Without a list for training, it is all that no list names.

    Raises:
        DatasetError: a list cannot be read, or names nothing that is there.
    """
    pool = [pair for pairs in found.pairs.values() for pair in pairs]
    problems = [*found.problems, *(replace(problem, severity="warning") for problem in found.unmatched)]
    chosen: dict[Split | None, list[Pair]] = {}
    for part, file in lists.items():
        chosen[part], noticed = select(pool, read_names(file), source=str(file))
        problems += noticed
    problems += _in_two_parts(chosen)
    # What two lists name is kept out of training, and belongs to the first other list that has it.
    taken: set[str] = set()
    for part in [part for part in ("test", "validation", "train") if part in chosen]:
        chosen[part] = [pair for pair in chosen[part] if pair.name not in taken]
        taken |= {pair.name for pair in chosen[part]}
    rest = [pair for pair in pool if pair.name not in taken]
    layout = f"{found.layout}; divided by {', '.join(file.name for file in lists.values())}"
    if "train" not in lists:
        chosen["train"] = rest
    elif rest:
        layout += f", which leave out {pluralize(len(rest), 'pair')}"
    return DiscoveredPairs(chosen, layout, tuple(problems), left_out=found.left_out)


def select(pool: Sequence[Pair], names: Sequence[str], *, source: str) -> tuple[list[Pair], list[Problem]]:
    """The pairs of these names, in their order, and what is wrong with the names.

    Args:
        names: without extension; folders before them are allowed.
        source: where the names come from, for messages.

    Raises:
        DatasetError: none of the names has a pair.
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
            "file if it is no list"
        )
    remedy = "add the files or take the name out"
    problems = problems_of("error", "name", f"in {source} without an image with a mask; {remedy}", missing)
    problems += problems_of("warning", "name", f"repeated in {source}, used once", again)
    return list(chosen.values()), problems


def _endings(entry: str) -> Iterator[str]:
    """ "images/p1/a" -> itself, "p1/a", "a": lists name files from some folder above."""
    parts = PurePosixPath(normalize_name(entry)).parts
    return ("/".join(parts[i:]) for i in range(len(parts)))


def _in_two_parts(chosen: Mapping[Split | None, Sequence[Pair]]) -> list[Problem]:
    counts = Counter(pair.name for pairs in chosen.values() for pair in pairs)
    both = [name for name, count in counts.items() if count > 1]
    return problems_of("error", "name", "in the lists of two parts; take it out of one", both)


def divide(found: DiscoveredPairs, *, val_fraction: float | None, seed: int) -> Dataset:
    """Make a data set of what a layout gave: where no validation part is named, it is held out from training.

    Args:
        val_fraction: Share of the training pairs to hold out; default: `SMALL_SET_FRACTION` of fewer than `SMALL_SET`
            pairs, otherwise `FRACTION`.
        seed: Seed of the random choice.

    Raises:
        DatasetError: nothing is left to train on, or too little to hold out.
        OptionError: the fraction is not between 0 and 1.
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
            f"{found.layout}: no pairs to train on; only {', '.join(str(part) for part in pairs)} was found"
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
    """Names with their part in front, where two parts have an image of one name."""
    if not duplicate_names(pair.name for items in found.pairs.values() for pair in items):
        return found
    pairs = {
        part: [replace(pair, name=f"{part or 'other'}/{pair.name}") for pair in items]
        for part, items in found.pairs.items()
    }
    return replace(found, pairs=pairs)


def _divided_groups(dataset: Dataset) -> list[Problem]:
    parts: dict[str, set[Split]] = defaultdict(set)
    for part in SPLITS:
        for pair in dataset.parts[part]:
            if pair.group is not None:
                parts[pair.group].add(part)
    divided = [f"{group} ({', '.join(sorted(where))})" for group, where in parts.items() if len(where) > 1]
    message = "divided between parts, which makes scores too good; move it into one"
    return problems_of("error", "group", message, divided)
