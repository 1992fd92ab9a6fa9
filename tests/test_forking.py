"""A predictor that was loaded, and used, in a parent process predicts the same in its forked children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from condseg_sdk.errors import DeviceError
from condseg_sdk.forking import check_process, fork_safe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PARENT = """
import multiprocessing, os, sys, threading, time
import numpy as np, torch
from condseg_sdk import OnnxOptions, Predictor
from condseg_sdk.errors import CondsegError

torch.set_num_threads(4)
checkpoint, work = sys.argv[1:3]
rng = np.random.default_rng(0)
images = [rng.integers(0, 255, (400, 500, 3), np.uint8) for _ in range(5)]
predictor = Predictor.from_pretrained(checkpoint, device="cpu")


def same(found, expected):
    return all(np.abs(a.logits - b.logits).max() < 1e-4 for a, b in zip(found, expected, strict=True))


def in_child(name, work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            print(name, "ok" if work() else "differs", torch.get_num_threads(), flush=True)
            os._exit(0)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
    until = time.monotonic() + 200
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    print(name, "HANGS", flush=True)


def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(same([predictor(images[0])], expected[:1])))
    thread.start()
    thread.join()
    return found == [True]


def export():
    predictor.export_onnx(work + "/child.onnx", dynamic=False, verify=False)
    return os.path.exists(work + "/child.onnx")


def half_used():
    try:
        next(begun)
    except CondsegError as error:
        return "fork" in str(error)


def grandchild():
    child = os.fork()
    if child == 0:
        os._exit(0 if same([predictor(images[0])], expected[:1]) else 1)
    return os.waitpid(child, 0)[1] == 0


in_child("cold", lambda: predictor(images[0]) is not None)
expected = predictor.predict(images)
begun = predictor.stream(images * 4, batch_size=1)
next(begun)
in_child("one", lambda: same([predictor(images[0])], expected[:1]))
in_child("list", lambda: same(predictor.predict(images), expected))
in_child("tiles", lambda: predictor(images[0], tile=200) is not None)
in_child("stream", lambda: same(list(predictor.stream(iter(images))), expected))
in_child("reload", lambda: same([Predictor.from_pretrained(checkpoint, device="cpu")(images[0])], expected[:1]))
in_child("one-thread", lambda: torch.set_num_threads(1) or same([predictor(images[0])], expected[:1]))
in_child("thread", in_thread)
in_child("grandchild", grandchild)
in_child("half-used", half_used)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print("pool", "ok" if same(pool.map(predictor, images), expected) else "differs", flush=True)
if "export" not in sys.argv:
    raise SystemExit
in_child("export", export)
predictor.export_onnx(work + "/model.onnx", dynamic=False, verify=False)
fast = Predictor.from_pretrained(work + "/model.onnx", device="cpu", runtime=OnnxOptions(threads=4))
from_onnx = fast.predict(images)
in_child("onnx", lambda: same(fast.predict(images), from_onnx))
"""


def run_parent(*arguments: str | Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PARENT, *map(str, arguments)],
        capture_output=True, text=True, timeout=1200, check=False, env={**os.environ, "OMP_NUM_THREADS": "4"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert {name: line for name, line in lines.items() if not line.startswith("ok")} == {}, done.stderr
    return lines


def test_forked_children_predict_as_their_parent(checkpoint: Path, tmp_path: Path) -> None:
    lines = run_parent(checkpoint, tmp_path)
    assert len(lines) == 11
    assert lines["one"] == "ok 4"  # as many threads as in the parent, not one for safety


@pytest.mark.slow
def test_forked_children_export_and_run_exports(checkpoint: Path, tmp_path: Path) -> None:
    lines = run_parent(checkpoint, tmp_path, "export")
    assert "export" in lines
    assert "onnx" in lines


def test_a_gpu_is_not_used_in_another_process_than_the_one_that_opened_it() -> None:
    check_process(os.getpid(), "cuda:0")
    check_process(os.getpid() + 1, "cpu")
    with pytest.raises(DeviceError, match="load the predictor in each process"):
        check_process(os.getpid() + 1, "cuda:0")


def test_an_error_in_the_other_thread_is_raised_in_the_caller(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            fork_safe(lambda: 1 / 0)()
        except ZeroDivisionError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
