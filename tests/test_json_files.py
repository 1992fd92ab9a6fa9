"""JSON files: any content becomes plain data or an error of one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from condseg_sdk.errors import CondsegError, DatasetError, OptionError
from condseg_sdk.json_files import parse_json, read_json, read_json_object, write_json

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not JSON"),
    "truncated": (b'{"a": [1, 2', "is not JSON"),
    "two documents": (b"{}{}", "Extra data"),
    "latin-1": (b'{"name": "\xe4"}', "byte 10 is not UTF-8 text"),
    "half of UTF-16": ('{"a": 1}'.encode("utf-16")[:-1], "UTF-16 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not JSON"),
    "null bytes": (b"\0" * 100, "is not JSON"),
    "nested lists": (b"[" * 100_000, "nested too deep"),
    "nested objects": (b'{"a":' * 100_000, "nested too deep"),
    "nested and closed": (b"[" * 65 + b"]" * 65, "nested too deep"),
    "5,000 digits": (b"[" + b"7" * 5000 + b"]", "of 5000 digits is too large"),
    "65 bits": (b"[18446744073709551616]", "is too large"),
    "not a number": (b"[NaN]", "NaN is not a finite number"),
    "infinity": (b"[-Infinity]", "-Infinity is not a finite number"),
    "beyond a float": (b"[1e400]", "1e400 is not a finite number"),
    "long and beyond a float": (b"[" + b"9" * 350 + b".0]", "is not a finite number"),
    "half a character": (b'["\\ud83d"]', "surrogates not allowed"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named_in_one_line(damage: str, tmp_path: Path) -> None:
    content, message = DAMAGED[damage]
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_json(path, error=DatasetError, remedy="export it again")
    text = str(caught.value)
    assert text.startswith(f"{path} ")
    assert text.endswith("; export it again")
    assert len(text.splitlines()) == 1
    assert len(text) < 300


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_in_every_unicode_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    values = {"größe": [1, -2.5, 1e-200, True, None], "\U0001f600": {"a": 2**64 - 1}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values, ensure_ascii=False), encoding=encoding)
    assert read_json(path, error=OptionError, remedy="-") == values


def test_file_names_that_are_not_unicode_are_read_back() -> None:
    name = os.fsdecode(b"bild_\xe4.png")
    assert parse_json(json.dumps([name]), name="a.json", error=OptionError, remedy="-") == [name]


@pytest.mark.parametrize("error", [DatasetError, OptionError])  # the latter is a ValueError, too
def test_only_regular_files_are_opened(error: type[CondsegError], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(error, match=f"^{path} is not a regular file"):
            read_json(path, error=error, remedy="-")
    with pytest.raises(error, match=r"missing.json does not exist; -"):
        read_json(tmp_path / "missing.json", error=error, remedy="-")
    with pytest.raises(error, match="cannot be read"):
        read_json("a\0b", error=error, remedy="-")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte, of which nothing is on the disk
    with pytest.raises(DatasetError, match="has more than 1 MiB"):
        read_json(path, error=DatasetError, remedy="-", max_bytes=2**20)


def test_other_json_than_an_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with pytest.raises(DatasetError, match="is not a JSON object; export it again"):
        read_json_object(path, error=DatasetError, remedy="export it again")


def test_written_json_is_read_back(tmp_path: Path) -> None:
    values = {"name": "Läsion \udce9", "numbers": [1, 2.5, None, True]}
    path = write_json(tmp_path / "a.json", values)
    assert read_json(path, error=DatasetError, remedy="") == values


def test_numbers_that_are_not_finite_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
