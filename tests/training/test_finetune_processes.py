"""Runs in processes of their own: killed and resumed, and distributed over two processes."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from condseg_sdk import finetune
from condseg_sdk.weights.checkpoint import load_checkpoint
from tests.helpers.datasets import make_set

RUN = """
import json, sys
from condseg_sdk import finetune
finetune(**json.loads(sys.argv[1]))
"""


def command(**options: Any) -> list[str]:
    values = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return [sys.executable, "-c", RUN, json.dumps({**values, "progress": False, "report": False})]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def check_whole(folder: Path) -> None:
    """Check that every file under its final name is complete."""
    for path in folder.rglob("[!.]*"):
        if path.suffix == ".ckpt":
            assert "state_dict" in torch.load(path, weights_only=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                assert all(None not in row.values() for row in csv.DictReader(file))
        elif path.suffix == ".safetensors":
            load_file(path)
    if (folder / "checkpoint").exists():
        load_checkpoint(folder / "checkpoint")


def finished_epochs(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("stage*/metrics.csv"))


@pytest.mark.slow
def test_a_run_killed_at_random_moments_and_resumed_gives_the_same_bits(base: Path, tmp_path: Path) -> None:
    data = make_set(tmp_path / "data", [f"n{i:02}" for i in range(20)])
    options = {
        "data": data, "base": base, "epochs": 6, "stage1_epochs": 3, "batch_size": 4, "deterministic": True, "early_stopping_patience": 5,
    }  # fmt: skip
    whole = tmp_path / "whole"
    subprocess.run(command(**options, output_dir=whole), env=environment(), check=True, stderr=subprocess.DEVNULL)
    killed = tmp_path / "killed"
    rng = random.Random()  # any moment will do
    for epochs in sorted(rng.sample(range(7), 3)):
        resumed = command(**options, output_dir=killed, resume=True)
        process = subprocess.Popen(resumed, env=environment(), stderr=subprocess.DEVNULL)
        while process.poll() is None and finished_epochs(killed) < epochs:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        assert process.poll() is None, "the run was over before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        check_whole(killed)
    subprocess.run(command(**options, output_dir=killed, resume=True), env=environment(), check=True)
    check_whole(killed)
    assert not list(killed.glob("stage*/.*"))
    weights, expected = (load_file(run / "checkpoint" / "model.safetensors") for run in (killed, whole))
    assert weights.keys() == expected.keys()
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name
    results = [json.loads((run / "result.json").read_text()) for run in (killed, whole)]
    assert results[0]["metrics"] == results[1]["metrics"]
    for mine, theirs in zip(results[0]["history"], results[1]["history"], strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """20 steps in one process: arguments and result.json."""
    folder = tmp_path_factory.mktemp("alone")
    data = make_set(folder / "data", [f"n{i:02}" for i in range(11)])
    (data / "val.txt").write_text("n03\nn05\nn07\n")  # an odd number: one of two processes gets a filler
    # BatchNorm is frozen, since each process would have statistics of its own.
    options: dict[str, Any] = {
        "data": data,
        "base": base,
        "epochs": 10,
        "stage1_epochs": 0,
        "batch_size": 4,
        "freeze_batchnorm": True,
        "accelerator": "cpu",
    }
    finetune(**options, output_dir=folder / "one", devices=1, progress=False, report=False)
    return options, json.loads((folder / "one" / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_follow_the_loss_of_one(
    alone: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path, launcher: str
) -> None:
    options, expected = alone
    script = tmp_path / "train.py"
    script.write_text(RUN)
    arguments = command(**options, output_dir=tmp_path / "two", devices=2, strategy="ddp")[-1]
    runner = [sys.executable]
    if launcher == "torchrun":
        runner += ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    extra = {"MASTER_PORT": free_port()} if launcher == "lightning" else {}
    subprocess.run([*runner, str(script), arguments], env=environment(**extra), check=True, timeout=300)
    together = json.loads((tmp_path / "two" / "result.json").read_text())
    assert expected["history"][-1]["step"] == 20
    assert len({row["loss"] for row in expected["history"]}) == 10
    for mine, theirs in zip(together["history"], expected["history"], strict=True):
        for name in ("step", "loss", "val_loss", "val_iou"):
            assert mine[name] == pytest.approx(theirs[name], abs=1e-3), (mine, theirs)
    assert together["metrics"]["mIoU"] == pytest.approx(expected["metrics"]["mIoU"], abs=1e-2)
