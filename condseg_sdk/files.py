"""Writes files and folders atomically: they appear complete or not at all."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from condseg_sdk.errors import OutputError

__all__ = [
    "atomic_folder",
    "atomic_write",
    "atomic_write_all",
    "check_folder",
    "check_replaceable",
    "is_utf8",
    "make_folder",
    "relative_to",
    "remove_temporary_files",
    "write_bytes",
    "write_csv",
    "write_text",
]

_temporary: set[Path] = set()  # being written, not yet moved to their final places


def remove_temporary_files() -> None:
    """Remove files that are being written, for a process that is about to end without unwinding its stack."""
    for temporary in tuple(_temporary):
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink()


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Write a file beside its final place, then rename it, so that no reader sees half of it.

    Args:
        path: Final path of the file. An existing file is replaced; the folder must exist.
        write: Writes the file to the temporary path that it is called with, in the same folder and with the same
            suffix.

    Raises:
        OutputError: The file cannot be written (missing folder, no permission, full disk). Other errors of `write`
            are raised unchanged. In both cases the folder is left as it was.

    Example:
        >>> import tempfile
        >>> path = atomic_write(f"{tempfile.mkdtemp()}/a.txt", lambda path: path.write_text("whole"))
        >>> path.read_text()
        'whole'
    """
    atomic_write_all({Path(path): write})
    return Path(path)


def atomic_write_all(writes: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files that belong together: once all are written, they are renamed one after the other.

    Args:
        writes: For each final path, a function as in `atomic_write`.

    Raises:
        OutputError: A file cannot be written. Other exceptions of a function are raised unchanged. In both cases no
            file has changed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> atomic_write_all({folder / name: lambda path: path.write_text("whole") for name in ("a.txt", "b.txt")})
        >>> sorted(path.name for path in folder.iterdir())
        ['a.txt', 'b.txt']
    """
    path = Path()
    with ExitStack() as stack:
        try:
            written: dict[Path, Path] = {}
            for path, write in writes.items():
                written[path] = stack.enter_context(_temporary_path(path))
                write(written[path])
            for path, temporary in written.items():
                temporary.replace(path)
        except OSError as error:
            remedy = "choose a folder that exists and can be written to"
            raise OutputError(f"{path} cannot be written ({error.strerror or error}); {remedy}", path=path) from error


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write bytes to a file atomically, as `atomic_write` does.

    Example:
        >>> import tempfile
        >>> write_bytes(f"{tempfile.mkdtemp()}/a.bin", b"whole").read_bytes()
        b'whole'
    """
    return atomic_write(path, lambda path: path.write_bytes(data))


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write text as UTF-8 to a file atomically, as `atomic_write` does.

    Characters that UTF-8 cannot hold, such as bytes of a file name in another encoding, are escaped.

    Example:
        >>> import tempfile
        >>> write_text(f"{tempfile.mkdtemp()}/a.txt", "whole").read_text()
        'whole'
    """
    return write_bytes(path, text.encode(errors="backslashreplace"))


def write_csv(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Path:
    r"""Write a CSV file with a header atomically, as `atomic_write` does.

    Example:
        >>> import tempfile
        >>> write_csv(f"{tempfile.mkdtemp()}/a.csv", ["name", "dice"], [{"name": "a", "dice": 0.5}]).read_text()
        'name,dice\na,0.5\n'
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    return atomic_write(path, write)


@contextmanager
def _temporary_path(path: Path) -> Iterator[Path]:
    """Provide a temporary path beside `path`; after the block it is moved, or removed if the block failed."""
    # tempfile would make a file that only its owner may read (mode 0600).
    temporary = path.parent / f".{uuid.uuid4().hex}{path.suffix}"
    _temporary.add(temporary)
    try:
        yield temporary
    finally:
        with suppress(OSError):  # it exists only after some failures
            temporary.unlink()
        _temporary.discard(temporary)


def atomic_folder(
    path: str | os.PathLike[str], write: Callable[[Path], object], *, replaces: Collection[str] = ()
) -> Path:
    """Write a folder beside its final place, then rename it, so that it is complete or not there at all.

    Args:
        path: Final path of the folder. Parent folders are created.
        write: Writes the files into the empty folder that it is called with.
        replaces: Names of files in an existing folder that may be deleted. A folder with other files is not replaced.

    Raises:
        OutputError: The folder has other files, or it cannot be written. Other exceptions of `write` are raised
            unchanged. An existing folder is kept.

    Example:
        >>> import tempfile
        >>> path = atomic_folder(f"{tempfile.mkdtemp()}/run", lambda path: (path / "a.txt").write_text("whole"))
        >>> (path / "a.txt").read_text()
        'whole'
    """
    path = Path(path).resolve()
    temporary, before = (path.parent / f".{uuid.uuid4().hex}" for _ in range(2))
    _temporary.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(path, replaces)
        temporary.mkdir()
        write(temporary)
        if path.exists():
            path.rename(before)
        try:
            temporary.rename(path)
        except OSError:
            if before.exists():
                before.rename(path)
            raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder", path=path
        ) from error
    finally:
        for leftover in (temporary, before):
            shutil.rmtree(leftover, ignore_errors=True)
        _temporary.discard(temporary)
    return path


def check_replaceable(folder: Path, replaces: Collection[str]) -> None:
    """Check that `atomic_folder` may replace a folder.

    Raises:
        OutputError: The path is a file, or a folder with files that are not in `replaces`.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose a folder", path=folder)
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in replaces)
    if others:
        raise OutputError(
            f"{folder} has other files, such as {others[0]}; choose a new or an empty folder", path=folder
        )


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder and its parents if they are missing.

    Raises:
        OutputError: A file is in the way, or the place cannot be written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "choose another folder, one that can be written to"
        raise OutputError(f"{path} cannot be created ({error.strerror or error}); {remedy}", path=path) from error
    return path


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is UTF-8, as some libraries require; on Linux a name may have any bytes.

    Example:
        >>> is_utf8("a.png"), is_utf8(os.fsdecode(bytes([0xE9])) + ".png")
        (True, False)
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_folder(path: str | os.PathLike[str]) -> None:
    """Check that a folder can be made and written to, without changing the disk.

    Raises:
        OutputError: A file is in the way, or the place cannot be written to.
    """
    try:
        place = Path(path).absolute()
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        remedy = "choose another folder, one that can be written to"
        raise OutputError(
            f"{path} cannot be created or written to ({error.strerror or error}); {remedy}", path=path
        ) from error


def relative_to(path: Path) -> str:
    """Return what a relative path is relative to, for the message that it does not exist; "" for an absolute one.

    Example:
        >>> relative_to(Path("/data/frame.jpg"))
        ''
    """
    if path.is_absolute():
        return ""
    try:
        return f" (relative to {Path.cwd()})"
    except OSError:
        return " (the current folder no longer exists)"
