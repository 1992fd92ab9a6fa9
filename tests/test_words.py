"""Nouns agree with their numbers in every message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import condseg_sdk
from condseg_sdk.words import pluralize


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "entry", "1 entry"),
        (4, "entry", "4 entries"),
        (2, "array", "2 arrays"),
        (3, "class", "3 classes"),
        (12_000, "image", "12,000 images"),
        (2, "file without a suffix", "2 files without a suffix"),
        (1, "folder named day 1 to 5", "1 folder named day 1 to 5"),
        (2, "folder named day 1 to 5", "2 folders named day 1 to 5"),
        (2, "link to a folder that was visited already", "2 links to a folder that was visited already"),
    ],
)
def test_a_noun_agrees_with_its_number(count: int, noun: str, words: str) -> None:
    assert pluralize(count, noun) == words


def test_no_module_makes_plurals_by_hand() -> None:
    folder = Path(condseg_sdk.__file__).parent
    by_hand = re.compile(r"""["']s["'] if|else ["']s["']|["']s["'] \* """)
    assert [path.name for path in folder.rglob("*.py") if by_hand.search(path.read_text(encoding="utf-8"))] == []


def test_what_follows_the_noun_of_a_problem_fits_one_file_and_several() -> None:
    folder = Path(condseg_sdk.__file__).parent / "data"
    clause = re.compile(r'"(of [^";]*)?that (is|was|does|has|needs|lacks)\b')
    assert [path.name for path in folder.rglob("*.py") if clause.search(path.read_text(encoding="utf-8"))] == []
