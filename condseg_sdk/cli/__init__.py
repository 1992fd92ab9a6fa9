"""The `condseg` command: one module a subcommand, each with `configure` (its arguments) and `run`.

This module loads nothing, so that Ctrl-C is taken care of before anything is loaded. Nothing is computed here; what the
commands do is in the modules they call.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments without the program's name; default: those of the process, whose streams and signals are
            then prepared for a command line, too.

    Returns:
        The exit code: 0 all done, 1 done but something was left out (skipped images, output that could not be printed),
        2 an error, told in one line on stderr, 130 and 143 ended by Ctrl-C and SIGTERM.
    """
    if arguments is None:
        import os

        # OpenMP's threads wait in a loop by default. Beside another busy process they keep each other from the cores
        # at every step of a network, which then takes many times as long. OpenMP reads this when PyTorch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from condseg_sdk.cli import interrupts

        interrupts.install()
    from condseg_sdk.cli.command import run

    return run(arguments)
