"""Writing files and folders that appear whole or not at all. What is inside a file is decided elsewhere."""

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
    "remove_parts",
    "write_bytes",
    "write_csv",
    "write_text",
]

_parts: set[Path] = set()  # begun and not yet in their places


def remove_parts() -> None:
    """Remove what is being written right now, for a process that is about to end without unwinding its stack."""
    for part in tuple(_parts):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):
                part.unlink()


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Write a file beside its final place, then rename it: a reader never sees half of it.

    Args:
        path: Where the file shall stand. An existing file is replaced; the folder must exist.
        write: Called once with a temporary path in the same folder and of the same suffix; it writes the file
            there.

    Returns:
        The final path.

    Raises:
        OutputError: The file cannot be written there (no such folder, no permission, disk full). Whatever
            else `write` raises passes through. In both cases the folder is left as it was.

    Example:
        >>> import tempfile
        >>> path = atomic_write(f"{tempfile.mkdtemp()}/a.txt", lambda part: part.write_text("whole"))
        >>> path.read_text()
        'whole'
    """
    atomic_write_all({Path(path): write})
    return Path(path)


def atomic_write_all(writes: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files that belong together: when all are written, they take their places one after the other.

    Args:
        writes: For each final path what `atomic_write` calls to write it.

    Raises:
        OutputError: A file cannot be written. Whatever else a function raises passes through. In both cases no file has
            changed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> atomic_write_all({folder / name: lambda part: part.write_text("whole") for name in ("a.txt", "b.txt")})
        >>> sorted(path.name for path in folder.iterdir())
        ['a.txt', 'b.txt']
    """
    path = Path()
    with ExitStack() as parts:
        try:
            written: dict[Path, Path] = {}
            for path, write in writes.items():
                written[path] = parts.enter_context(_part(path))
                write(written[path])
            for path, part in written.items():
                part.replace(path)
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
    return atomic_write(path, lambda part: part.write_bytes(data))


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
    """Write a CSV file with a header atomically, as `atomic_write` does.

    Example:
        >>> import tempfile
        >>> write_csv(f"{tempfile.mkdtemp()}/a.csv", ["name", "dice"], [{"name": "a", "dice": 0.5}]).read_text()
        'name,dice\\na,0.5\\n'
    """

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    return atomic_write(path, write)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which is gone after the block: moved, or removed where the block failed."""
    # Not a file of tempfile's, which only its owner could read (mode 0600).
    part = path.parent / f".{uuid.uuid4().hex}{path.suffix}"
    _parts.add(part)
    try:
        yield part
    finally:
        with suppress(OSError):  # it is there only after a failure, and not after each
            part.unlink()
        _parts.discard(part)


def atomic_folder(
    path: str | os.PathLike[str], write: Callable[[Path], object], *, replaces: Collection[str] = ()
) -> Path:
    """Write a folder beside its final place, then rename it: it stands there whole or not at all.

    Args:
        path: Where the folder shall stand. Folders above it are made.
        write: Called once with a new empty folder beside `path`; it writes the files there.
        replaces: Names that an existing folder may hold and lose. One with anything else is left alone.

    Returns:
        The final path.

    Raises:
        OutputError: The folder holds other files, or it cannot be written. Whatever else `write` raises passes
            through. What stood there before still does.

    Example:
        >>> import tempfile
        >>> path = atomic_folder(f"{tempfile.mkdtemp()}/run", lambda part: (part / "a.txt").write_text("whole"))
        >>> (path / "a.txt").read_text()
        'whole'
    """
    path = Path(path).resolve()
    part, before = (path.parent / f".{uuid.uuid4().hex}" for _ in range(2))
    _parts.add(part)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(path, replaces)
        part.mkdir()
        write(part)
        if path.exists():
            path.rename(before)
        try:
            part.rename(path)
        except OSError:
            if before.exists():
                before.rename(path)
            raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder", path=path
        ) from error
    finally:
        for leftover in (part, before):
            shutil.rmtree(leftover, ignore_errors=True)
        _parts.discard(part)
    return path


def check_replaceable(folder: Path, replaces: Collection[str]) -> None:
    """Refuse a place where `atomic_folder` would leave alone what stands there.

    Raises:
        OutputError: a file stands there, or a folder with other files than those of `replaces`.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose a folder", path=folder)
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in replaces)
    if others:
        raise OutputError(
            f"{folder} holds other files, such as {others[0]}; choose a new or an empty folder", path=folder
        )


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        OutputError: a file stands there, or the place cannot be written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "choose another folder, one that can be written to"
        raise OutputError(f"{path} cannot be made a folder ({error.strerror or error}); {remedy}", path=path) from error
    return path


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Whether a path can be given to libraries that take names as UTF-8; on Linux a name may be any bytes.

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
    """Refuse a folder that could not be made or written to, and leave the disk as it is.

    Raises:
        OutputError: a file stands there, or the place cannot be written to.
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
            f"{path} cannot be made a folder or written to ({error.strerror or error}); {remedy}", path=path
        ) from error


def relative_to(path: Path) -> str:
    """What a relative path is relative to, for the message that it does not exist; nothing for others.

    Example:
        >>> relative_to(Path("/data/frame.jpg"))
        ''
    """
    if path.is_absolute():
        return ""
    try:
        return f" (relative to {Path.cwd()})"
    except OSError:
        return " (the current folder does not exist any more)"
