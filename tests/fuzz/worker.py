"""A process that runs cases until it is told to stop, dies, or is killed."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Literal

from condseg_sdk.errors import CondsegError

from .target import Case, Target

__all__ = ["Verdict", "judge", "our_frame", "silence", "work"]

PACKAGE = "condseg_sdk"
MESSAGE_LIMIT = 500  # characters of a message that the log keeps


@dataclass(frozen=True)
class Verdict:
    """The result of a case.

    Attributes:
        target, number: The case.
        verdict: "ok" for a prediction, "error" for a CondsegError as it should be, "fail" for anything else.
        kind: What failures are counted by: the exception and the place in our code.
        message: The error's text.
        seconds: Processor time from opening the files to the end; of a process that was killed, all time.
        megabytes: The process's greatest resident memory meanwhile; 0 if the system does not report it.
        details: Traceback of a failure; not in the log.
    """

    target: str
    number: int
    verdict: Literal["ok", "error", "fail"]
    kind: str = ""
    message: str = ""
    seconds: float = 0.0
    megabytes: int = 0
    details: str = ""


def work(connection: Connection, targets: Mapping[str, Target], corpus: Path, folder: Path) -> None:
    """Answer each (target, number) that comes with a `Verdict`, until the other end is closed.

    Args:
        connection: To the parent.
        targets: By name.
        corpus: Folder with a folder of intact files for each target.
        folder: For the files of the case at hand, the output of libraries, and the stack of a process that hangs.
    """
    _prepare(folder)
    while True:
        try:
            name, number = connection.recv()
        except EOFError:
            return
        connection.send(judge(targets[name], number, corpus, folder / "case"))


def _prepare(folder: Path) -> None:
    """Keep libraries off the terminal, and let the kernel take this process first if memory runs out."""
    import torch

    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    silence(folder / "output.txt")
    _write("/proc/self/oom_score_adj", "1000")
    if hasattr(faulthandler, "register"):
        # The file must stay open for as long as the process lives.
        faulthandler.register(signal.SIGUSR1, (folder / "stack.txt").open("w"), all_threads=True)


def silence(path: Path) -> None:
    """Redirect the output of this process and its libraries to a file."""
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)


def judge(target: Target, number: int, corpus: Path, folder: Path) -> Verdict:
    """Run one case.

    Args:
        target: What is read.
        number: Which case of it.
        corpus: Folder with the targets' intact files.
        folder: Where the case's files are written; what is there is deleted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        case = target.mutate(Random(f"{target.name} {number}"), corpus, folder)
    except Exception as error:  # noqa: BLE001 - a fault of the fuzzer's own, which must not look like a crash
        kind = f"the mutation itself: {type(error).__name__} at {_place(error)}"
        return Verdict(target.name, number, "fail", kind, str(error)[:MESSAGE_LIMIT], details=traceback.format_exc())
    _write("/proc/self/clear_refs", "5")  # begin anew with the greatest resident memory
    start = time.process_time()
    kind, message, details = "", "", ""
    verdict: Literal["ok", "error", "fail"] = "ok"
    try:
        target.read(case, corpus)
    except CondsegError as error:
        message, kind = str(error), _fault_of_message(str(error), case)
        verdict = "fail" if kind else "error"
        if kind:
            details = traceback.format_exc()
            kind = f"{kind}: {type(error).__name__} at {_place(error)}"
    except BaseException as error:  # noqa: BLE001 - any exception but ours is what is looked for
        verdict, message, details = "fail", f"{error}", traceback.format_exc()
        kind = f"{type(error).__name__} at {_place(error)}"
    seconds = round(time.process_time() - start, 3)
    message = message.encode("utf-8", "backslashreplace").decode()[:MESSAGE_LIMIT]
    return Verdict(target.name, number, verdict, kind, message, seconds, _peak_megabytes(), details)


def _fault_of_message(message: str, case: Case) -> str:
    """Return what is wrong with the text of an error, or ""."""
    if not message.strip():
        return "no message"
    if len(message.splitlines()) != 1:
        return "message of several lines"
    if not any(name in message for name in case.names):
        return "message without the file's name"
    return ""


def _place(error: BaseException) -> str:
    """Return the innermost frame in the package's code, otherwise the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if PACKAGE in Path(frame.filename).parts]
    frame = (ours or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"


def our_frame(stack: str) -> str:
    """Return the same from the text that `faulthandler` writes for a process that hangs."""
    lines = [line.strip() for line in stack.splitlines() if f"/{PACKAGE}/" in line]
    words = lines[0].replace('"', "").split() if lines else []
    return f"{Path(words[1].rstrip(',')).name}:{words[3]} {words[-1]}" if len(words) >= 6 else "an unknown place"


def _peak_megabytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _write(path: str, text: str) -> None:
    """Set an option of the Linux kernel; other systems have none."""
    if sys.platform == "linux":
        try:
            Path(path).write_text(text)
        except OSError:
            return
