import gc
import subprocess
import sys

import pytest

from condseg_sdk.collector import collector_paused

SHOW = """
import gc, sys
from condseg_sdk.cli import main
sys.argv = ["condseg", *sys.argv[1:]]
try:
    main()
finally:
    print("threshold", gc.get_threshold()[0], file=sys.stderr)
"""


def test_the_collector_runs_again_after_the_outermost_pause() -> None:
    with collector_paused():
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_error_ends_the_pause() -> None:
    with pytest.raises(ValueError, match="x"), collector_paused():
        raise ValueError("x")
    assert gc.isenabled()


@pytest.mark.parametrize(("command", "rarely"), [("models", True), ("finetune", False)])
def test_commands_collect_rarely_but_a_training_does_not(command: str, rarely: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, command, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    threshold = int(done.stderr.rsplit(maxsplit=1)[-1])
    assert (threshold == 50_000) == rarely
