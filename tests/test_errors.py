"""What every error of the package keeps: one line, and what it is about."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import condseg_sdk
from condseg_sdk import errors
from condseg_sdk.errors import CondsegError, OptionError, OutputError

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", ALL)
def test_pickled_errors_keep_message_and_attributes(kind: type[CondsegError]) -> None:
    error = pickle.loads(pickle.dumps(kind("no", path="a/b.png", repo_id="org/name", option="tile")))
    assert type(error) is kind
    assert (str(error), error.path, error.repo_id, error.option) == ("no", Path("a/b.png"), "org/name", "tile")


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_public_name(kind: type[CondsegError]) -> None:
    assert getattr(condseg_sdk, kind.__name__) is kind
    assert kind.__name__ in condseg_sdk.__all__


def test_messages_are_one_short_line_without_control_characters() -> None:
    assert str(CondsegError("a\nb\x1b[31m")) == "a b [31m"
    long = str(CondsegError("x" * 5000 + "; remedy"))
    assert len(long) < 2100
    assert long.endswith("; remedy")


def test_attributes_are_none_unless_given() -> None:
    error = OutputError("no")
    assert (error.path, error.repo_id, error.option) == (None, None, None)


def test_option_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="tile=0"):
        raise OptionError("tile=0 must be at least 1", option="tile")
