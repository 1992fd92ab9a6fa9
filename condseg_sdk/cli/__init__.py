"""The `condseg` command: one module per subcommand, each with `configure` (its arguments) and `run`.

This module imports nothing, so that Ctrl-C is handled before anything is loaded. Nothing is computed here: the commands
call other modules of the package.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments without the name of the program. Default: the process's arguments; its streams and signals
            are then prepared for a command line as well.

    Returns:
        The exit code: 0 if everything was done; 1 if something is missing (skipped images, output that could not be
        printed); 2 after an error, which is one line on stderr; 130 or 143 if Ctrl-C or SIGTERM ended the command.
    """
    if arguments is None:
        import os
        import sys

        # By default OpenMP's threads wait in a busy loop. Next to another busy process they block each other at every
        # step of a network, which then takes many times as long. OpenMP reads this when PyTorch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from condseg_sdk.cli import interrupts

        interrupts.install()
        from condseg_sdk.cores import limited_cores

        if (cores := limited_cores()) is not None:  # by default it starts a thread for each core of the machine
            os.environ.setdefault("OMP_NUM_THREADS", str(cores))
        if sys.argv[1:2] != ["finetune"]:  # in a training, uncollected objects may hold memory of a GPU
            from condseg_sdk.collector import collect_rarely

            collect_rarely()
    from condseg_sdk.cli.command import run

    return run(arguments)
