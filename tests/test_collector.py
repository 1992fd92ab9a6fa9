import gc
import os
import subprocess
import sys
import threading

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


def test_the_collector_is_on_after_the_pauses_of_many_threads() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def pause_often() -> None:
        for _ in range(200):
            with collector_paused():
                assert not gc.isenabled()

    try:
        for _ in range(5):
            threads = [threading.Thread(target=pause_often) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert gc.isenabled()
    finally:
        sys.setswitchinterval(before)


FORK = """
import gc, os, threading
from condseg_sdk.collector import collector_paused
paused, done = threading.Event(), threading.Event()

def pause():
    with collector_paused():
        paused.set()
        done.wait()

thread = threading.Thread(target=pause)
thread.start()
paused.wait()
if (child := os.fork()) == 0:
    os._exit(0 if gc.isenabled() else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
raise SystemExit(code if gc.isenabled() else 2)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_during_another_threads_pause_collects_again() -> None:
    assert subprocess.run([sys.executable, "-c", FORK], check=False, timeout=60).returncode == 0
