"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from condseg_sdk.errors import OutputError
from condseg_sdk.files import atomic_write, check_folder, write_csv, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    assert atomic_write(str(path), lambda part: part.write_text("new")) == path
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader:
        atomic_write(path, lambda part: part.write_text("new"))
        assert reader.read() == "old"


def test_the_temporary_file_is_beside_the_final_one_with_its_suffix(tmp_path: Path) -> None:
    parts: list[Path] = []
    atomic_write(tmp_path / "a.png", lambda part: (parts.append(part), part.touch()))
    assert parts[0].parent == tmp_path
    assert parts[0].suffix == ".png"


def test_text_that_is_not_unicode_is_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert write_text(tmp_path / "a.txt", name).read_bytes() == rb"caf\udce9.png"
    assert write_csv(tmp_path / "a.csv", ["name"], [{"name": name}]).read_bytes() == b"name\r\ncaf\\udce9.png\r\n"


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_the_file_has_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", lambda part: part.touch())
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(part: Path) -> None:
        part.write_text("ne")
        raise error

    with pytest.raises(error):
        atomic_write(path, half)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_unwritable_path_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "a.txt", tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            atomic_write(path, lambda part: part.write_text("new"))
        assert str(path) in str(caught.value)
    assert names(tmp_path) == ["file", "folder"]


def test_a_folder_is_checked_without_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be created or written to"):
            check_folder(path)
    for path in (tmp_path, tmp_path / "new" / "below"):
        check_folder(path)

    def no_permission(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", no_permission)  # tests may run as root, who may everything
    for path in (tmp_path, tmp_path / "new" / "below"):
        with pytest.raises(OutputError, match=r"\(Permission denied\); choose another folder"):
            check_folder(path)
    assert names(tmp_path) == ["file"]
