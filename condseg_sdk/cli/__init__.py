"""The `condseg` command: one module a subcommand, each with HELP, `configure` (its arguments) and `run`.

Nothing is computed here; what the commands do is in the modules they call.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from condseg_sdk.errors import CondsegError

COMMANDS = ("predict", "models", "export", "benchmark", "finetune", "evaluate", "convert", "push")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; default: those of the process.

    Returns:
        The exit code: 0 all done, 1 done but images were skipped (`predict --on-error skip`), 2 an error, told in one
        line on stderr.
    """
    try:
        options = _parser().parse_args(arguments)  # loads the commands, and with them PyTorch and OpenCV
        logging.basicConfig(format="condseg: %(message)s", level=logging.WARNING)
        code: int = options.run(options)
        return code
    except CondsegError as error:
        print(f"condseg: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `condseg models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("condseg: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="condseg", description="Segment medical images with ConDSeg. Not a medical device: for research only."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"condseg_sdk.cli.{name}")
        command = commands.add_parser(name, help=module.HELP)
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser
