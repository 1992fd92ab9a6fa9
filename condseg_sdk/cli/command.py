"""The parser of the command line, and the end of a command: its exit code, and one line for every error."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.console import prepare_console, write_error
from condseg_sdk.errors import CondsegError

COMMANDS = {
    "predict": "segment images, folders or videos",
    "app": "segment images and videos on a page in the browser",
    "models": "list the checkpoints and encoders that can be loaded by name",
    "export": "write a checkpoint as ONNX",
    "benchmark": "measure speed, memory and agreement on this machine",
    "finetune": "train on your own images and masks",
    "evaluate": "measure a checkpoint on images with masks",
    "convert": "convert a .pth file of the authors' code",
    "push": "publish a checkpoint on the Hugging Face Hub",
}


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; see `condseg_sdk.cli.main`."""
    if arguments is not None:
        return _run(list(arguments))
    prepare_console()
    code = _run(sys.argv[1:])
    if (reason := write_error()) is not None:
        print(f"condseg: the output above is incomplete, because it could not be printed ({reason})", file=sys.stderr)
        return code or 1
    return code


def _run(arguments: list[str]) -> int:
    try:
        _check_working_folder()
        options = make_parser(arguments).parse_args(arguments)
        logging.basicConfig(format="condseg: %(message)s", level=logging.WARNING)
        code: int = options.run(options)
        return code
    except CondsegError as error:
        print(f"condseg: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a fault of the machine: no memory for a process, no temporary folder
        print(f"condseg: error: {_reason(error)}; free space or memory, or check permissions", file=sys.stderr)
        return 2
    except MemoryError:
        print("condseg: error: out of memory; lower --batch-size, or use smaller images", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"{interrupts.STOPPED}; {error}" if str(error) else interrupts.STOPPED, file=sys.stderr)
        return interrupts.exit_code()


def _reason(error: OSError) -> str:
    """Return the message of an error in one line, with the file that it is about."""
    if error.filename is None:
        return " ".join((error.strerror or str(error)).splitlines())
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def _check_working_folder() -> None:
    """Refuse to run in a folder that was deleted: libraries ask for the current folder while they load."""
    try:
        os.getcwd()  # noqa: PTH109 - cheaper than pathlib here
    except OSError as error:
        raise CondsegError("the current folder no longer exists; change to another one (cd)") from error


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Make the parser. Only the named command gets its arguments, since the modules take time to load."""
    parser = argparse.ArgumentParser(
        prog="condseg", description="Segment medical images with ConDSeg. Not a medical device: for research only."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name in arguments:
            module = import_module(f"condseg_sdk.cli.{name}")
            module.configure(command)
            command.set_defaults(run=module.run)
    return parser
