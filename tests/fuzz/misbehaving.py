"""A target that does everything that a reader must not do, by the number of the case, to test the fuzzer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

from condseg_sdk.errors import CondsegError

from .target import Case, Target

__all__ = ["MISBEHAVING", "TARGET"]

MISBEHAVING = {
    0: "nothing",
    1: "a right error",
    2: "KeyError",
    3: "message without the file's name",
    4: "message of several lines",
    5: "memory",
    6: "crash",
    7: "longer",
    8: "no message",
}


class _UnjoinedError(CondsegError):
    """An error whose text may have several lines."""

    def __str__(self) -> str:
        return str(self.args[0]) + "\nand more"


def _mutate(rng: Random, corpus: Path, folder: Path) -> Case:
    path = folder / "case.txt"
    path.write_text((corpus / "misbehaving" / "intact.txt").read_text() + str(rng.random()))
    return Case(path, (path.name,))


def _read(case: Case, corpus: Path) -> None:
    """Misbehave by the number in the corpus file, since a reader does not know the number of the case."""
    number = int((case.path.parent.parent / "number.txt").read_text())
    (case.path.parent.parent / "number.txt").write_text(str(number + 1))
    match MISBEHAVING[number]:
        case "a right error":
            raise CondsegError(f"{case.path} is damaged; get it again")
        case "KeyError":
            raise KeyError("x")
        case "message without the file's name":
            raise CondsegError("it is damaged")
        case "message of several lines":
            raise _UnjoinedError(f"{case.path} is damaged")
        case "memory":
            held = []
            while True:
                held.append(b"x" * 100_000_000)
        case "crash":
            os.abort()
        case "longer":
            time.sleep(60)
        case "no message":
            raise CondsegError(" ")


def _make(folder: Path) -> None:
    (folder / "intact.txt").write_text("intact")


TARGET = Target("misbehaving", _make, _mutate, _read, weight=1)
