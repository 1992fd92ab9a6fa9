"""The kit for a machine with a GPU: parts, steps with time limits, results; with tiny files and no download."""

from __future__ import annotations

import argparse
import ast
import errno
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import Preprocessing, open_dataset
from tests.helpers.datasets import make_set

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "gpu"))
import parts
import prepare
import run

PROJECT = prepare.PROJECT


def sent(folder: Path, *, most: int = 7) -> tuple[dict[str, bytes], Path]:
    """Two files, and the folder with their parts."""
    contents = {"first.tar": bytes(range(20)), "second.tar": b"abc" * 5}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "parts").mkdir()
    parts.split([folder / name for name in contents], folder / "parts", most=most)
    return contents, folder / "parts"


def test_files_are_cut_into_full_parts_and_joined(tmp_path: Path) -> None:
    contents, folder = sent(tmp_path)
    assert [part.stat().st_size for part in sorted(folder.glob("part-*"))] == [7, 7, 7, 7, 7]
    joined = parts.join(folder, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in joined} == contents
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_parts_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    _, folder = sent(tmp_path)
    (folder / "part-001").unlink()
    (folder / "part-002").write_bytes(b"short")
    (folder / "part-003").write_bytes(b"wrong..")
    assert parts.missing(folder) == [
        "part-001 is missing",
        "part-002 has 5 of 7 bytes",
        "part-003 is damaged (SHA-256)",
    ]
    with pytest.raises(ValueError, match="part-003 is damaged"):
        parts.join(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def alive(number: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_command_ends_at_its_time_limit_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE", 0.1)
    command = ["sh", "-c", "trap '' INT; sleep 60 & echo $!; wait"]  # what it starts ignores SIGINT, too
    log = tmp_path / "log.txt"
    outcome = run.execute(command, log=log, limit=1.0, env=os.environ, cwd=tmp_path)
    assert outcome.status == "timed out"
    assert outcome.seconds < 10
    child = int(log.read_text().splitlines()[-1])
    wait_until(lambda: not alive(child))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_step_ends_with_all_that_it_started_when_the_run_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, run; "
        "run.execute(['sh', '-c', 'sleep 60 & echo $!; echo $$; wait'], log=pathlib.Path('log.txt'), limit=60,"
        " env=os.environ, cwd=pathlib.Path())"
    )
    path = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=path)
    log = tmp_path / "log.txt"
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 3)
    process.kill()
    process.wait()
    for child in map(int, log.read_text().splitlines()[1:]):
        wait_until(lambda child=child: not alive(child))


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(500):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError("nothing happened in ten seconds")


def archives(folder: Path) -> Path:
    """The parts of an empty repository, without wheels, and with one dataset."""
    source = folder / "source"
    for name in ("repository/README.md", "wheels/none", "data/polyp/train/a.jpg", "frames/polyp/a.jpg"):
        path = source / name
        path.parent.mkdir(parents=True)
        path.write_text("content")
    files = []
    for name in ("repository", "wheels", "data", "frames"):
        files.append(source / f"{name}.tar")
        with tarfile.open(files[-1], "w") as tar:
            tar.add(source / name, "." if name == "repository" else name)
    (folder / "parts").mkdir()
    parts.split(files, folder / "parts", most=10_000)
    return folder / "parts"


class Steps:
    """Steps that count how often they ran. "failing" fails until it is mended, and "raising" has a bug."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.mended = False

    def named(self, name: str) -> Any:
        def work(kit: run.Kit, log: Path, limit: float) -> run.Outcome:
            self.ran.append(name)
            log.write_text(f"this is {name}\n")
            if name == "raising":
                raise RuntimeError("a bug in a step")
            return run.Outcome("failed" if name == "failing" and not self.mended else "ok", 0, 0.0)

        return run.Step(60, work)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    own = {name: steps.named(name) for name in ("install", "failing", "raising", "last")}
    monkeypatch.setattr(run, "STEPS", {"unpack": run.STEPS["unpack"], **own})
    return steps


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    where = ["--parts", folder / "parts", "--work", folder / "work", "--out", folder / "out"]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, where), *options])
    return run.main()


def test_a_step_that_fails_does_not_stop_the_next_and_is_repeated_alone(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archives(tmp_path)
    assert call(tmp_path, monkeypatch) == run.FAILED
    assert steps.ran == ["install", "failing", "raising", "last"]
    assert (tmp_path / "work" / "repository" / "README.md").exists()
    lines = [json.loads(line) for line in (tmp_path / "work" / run.RESULTS).read_text().splitlines()]
    assert [(line["step"], line["status"]) for line in lines] == [
        ("unpack", "ok"),
        ("install", "ok"),
        ("failing", "failed"),
        ("raising", "failed"),
        ("last", "ok"),
    ]
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "RuntimeError: a bug in a step" in summary
    assert summary in capsys.readouterr().out
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as tar:
        assert "results/failing/log.txt" in tar.getnames()

    steps.ran, steps.mended = [], True
    assert call(tmp_path, monkeypatch, "--resume") == run.FAILED
    assert steps.ran == ["failing", "raising"]
    steps.ran = []
    assert call(tmp_path, monkeypatch, "--only", "last") == 0
    assert steps.ran == ["last"]


def test_nothing_runs_before_all_parts_have_arrived(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = archives(tmp_path)
    kept = (folder / "part-002").read_bytes()
    (folder / "part-002").unlink()
    assert call(tmp_path, monkeypatch) == run.NOT_ARRIVED
    assert "part-002 is missing" in capsys.readouterr().out
    assert not steps.ran
    (folder / "part-002").write_bytes(kept)
    assert call(tmp_path, monkeypatch, "--only", "last") == 0
    assert steps.ran == ["install", "last"]


def test_a_missing_or_damaged_index_is_named(tmp_path: Path) -> None:
    _, folder = sent(tmp_path)
    (folder / parts.INDEX).write_text('{"files": [')
    assert parts.missing(folder) == ["parts.json is damaged"]
    (folder / parts.INDEX).unlink()
    assert parts.missing(folder) == ["parts.json is missing"]


def test_a_full_disk_ends_in_one_line_and_the_next_call_repeats_nothing(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archives(tmp_path)

    def full(kit: run.Kit, log: Path, limit: float) -> run.Outcome:
        raise OSError(errno.ENOSPC, "No space left on device", "log.txt")

    with monkeypatch.context() as patch:
        patch.setitem(run.STEPS, "failing", run.Step(60, full))
        assert call(tmp_path, monkeypatch) == run.FAILED
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].startswith("error: No space left on device (log.txt), ")
    assert shown[-1].endswith("then call again with --resume")
    assert steps.ran == ["install"]
    steps.mended = True
    call(tmp_path, monkeypatch, "--resume")
    assert steps.ran == ["install", "failing", "raising", "last"]


def test_a_call_starts_no_step_that_its_time_does_not_allow(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archives(tmp_path)
    assert call(tmp_path, monkeypatch, "--within", "5") == 0
    assert not steps.ran
    assert "last: no time left; call again with --resume" in capsys.readouterr().out


def kit(folder: Path, **options: Any) -> run.Kit:
    given = {"data": None, "train": "--batch-size 2", "rehearse": True, "return_mb": 1, "send": "2-3", **options}
    (folder / "work" / "data" / "polyp").mkdir(parents=True)
    return run.Kit(folder / "parts", folder / "work", folder / "out", argparse.Namespace(**given))


def test_the_number_of_epochs_follows_from_a_short_run_and_the_checkpoint_comes_back_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []

    def execute(command: list[Any], *, log: Path, limit: float, **_: Any) -> run.Outcome:
        count = int(command[command.index("--epochs") + 1])
        epochs.append(count)
        folder = Path(command[command.index("--out") + 1])
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "checkpoint" / "model.safetensors").write_bytes(os.urandom(3_500_000))
        (folder / "settings.json").write_text("{}")
        (folder / "result.json").write_text("{}")
        (folder / "stage2").mkdir()
        (folder / "stage2" / "metrics.csv").write_text("epoch,seconds\n0,3.0\n1,2.0\n")
        return run.Outcome("ok", 0, 11.0)  # 6 s without the epochs

    monkeypatch.setattr(run, "execute", execute)
    here = kit(tmp_path)
    log = here.results("train") / "log.txt"
    assert run.train(here, log, 120).status == "ok"
    assert epochs[0] == 2
    assert 46 <= epochs[1] <= 48  # 85 % of 120 s, less 6 s, at 2 s for an epoch
    assert (log.parent / "result.json").exists()

    (here.work / run.RESULTS).write_text("")
    archives(tmp_path)
    run.give_back(here)
    assert sorted(path.name for path in here.out.glob("part-*")) == ["part-002", "part-003"]
    for part in here.work.glob("back/part-*"):
        (here.out / part.name).write_bytes(part.read_bytes())  # what a second call brings
    (file,) = parts.join(here.out, tmp_path / "joined")
    with tarfile.open(file) as tar:
        assert {"checkpoint/model.safetensors", "settings.json"} <= set(tar.getnames())


def test_a_dataset_is_sent_at_the_size_of_the_network_with_its_splits(tmp_path: Path) -> None:
    make_set(tmp_path / "set", [f"image{i}" for i in range(6)])
    lists = []
    for name, numbers in (("train", range(4)), ("val", (4, 5))):
        lists.append(tmp_path / f"{name}.txt")
        lists[-1].write_text("".join(f"image{i}\n" for i in numbers))
    given = ["polyp", str(tmp_path / "set"), *map(str, lists)]
    preprocessing = Preprocessing((64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    out = tmp_path / "data"
    line = prepare.save_dataset(given, preprocessing, argparse.Namespace(most=3, frames=1), out)
    assert line == "polyp: 3 pairs to train on, 2 for validation"
    dataset = open_dataset(out / "polyp")
    assert (len(dataset.train), len(dataset.validation)) == (3, 2)
    with Image.open(dataset.train[0].image) as image, Image.open(dataset.train[0].mask) as mask:
        assert (image.format, image.size, mask.format) == ("JPEG", (64, 64), "PNG")
        assert set(np.unique(np.asarray(mask))) <= {0, 255}
    assert len(list((tmp_path / "frames" / "polyp").iterdir())) == 1
    with pytest.raises(prepare.PreparationError, match="NAME FOLDER TRAIN_LIST VAL_LIST"):
        prepare.save_dataset(["polyp"], preprocessing, argparse.Namespace(most=3, frames=1), out)


def test_only_packages_that_the_machine_lacks_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tmp_path / "machine.txt"
    machine.write_text("torch==2.11.0+cu130\n")
    given = []

    def called(*command: str | Path) -> str:
        if "pyproject.toml" not in command:
            given.append(Path(command[-1]).read_text())
            return "torch==2.11.0\nnumpy==2.5.2\n"
        return (
            "numpy==2.5.2\nkornia==0.9.0\nopencv-python==5.0.0.93\nonnxruntime-gpu==1.31.1\nonnxruntime==1.31.1\n"
            "torch==2.11.0\nnvidia-cudnn-cu13==9.19.0.56\ntriton==3.6.0\n"
        )

    monkeypatch.setattr(prepare, "called", called)
    monkeypatch.setattr(prepare.shutil, "which", lambda _: "uv")
    expected = ["kornia==0.9.0", "opencv-python-headless==5.0.0.93", "onnxruntime-gpu==1.31.1"]
    assert prepare.requirements(machine) == expected
    assert given == ["torch==2.11.0\n"]
    monkeypatch.setattr(prepare.shutil, "which", lambda _: None)
    with pytest.raises(prepare.PreparationError, match="pip install uv"):
        prepare.requirements(machine)


def imported(file: Path, seen: set[Path]) -> set[str]:
    """The packages that a test module imports when it is loaded, those of its helpers included."""
    seen.add(file)
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    helpers = {PROJECT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tests.")}
    for helper in helpers - seen:
        names |= imported(helper, seen)
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


def test_every_package_that_the_gpu_tests_import_is_sent_or_there() -> None:
    files = [PROJECT / name for name in ("conftest.py", "tests/conftest.py", *run.gpu_tests(PROJECT))]
    names = set().union(*(imported(file, set()) for file in files))
    assert {"torch", "PIL", "onnxruntime"} <= names
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["train"], *prepare.TESTS]
    there = {prepare.wheel_name(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}
    installed_as = {"PIL": "pillow", "cv2": "opencv_python"}
    assert {installed_as.get(name, name) for name in names - {"condseg_sdk", "published", "tests"}} <= there
