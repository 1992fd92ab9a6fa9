"""Ctrl-C and SIGTERM at any moment of `condseg predict`: whole files, a summary, and the exit code that the shell expects.

CONDSEG_SIGNALS is the number of trials with each signal.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could catch"),
]

TRIALS = int(os.environ.get("CONDSEG_SIGNALS", "8"))
IMAGES = 200
KINDS = {"_mask.png", "_overlay.png", ".json"}


@pytest.fixture(autouse=True, scope="module")
def interrupts() -> Iterator[None]:
    """A shell lets what it starts in the background ignore SIGINT, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def start(images: Path, checkpoint: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "condseg_sdk.cli", "predict", str(images), "--model", str(checkpoint)]
    command += ["--out", str(out), "--save", "mask,overlay,json", "--device", "cpu"]
    command += ["--log", str(out.with_name("run.jsonl"))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def seconds(images: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a run takes that nobody interrupts."""
    begin = time.monotonic()
    process = start(images, checkpoint, tmp_path_factory.mktemp("out") / "out")
    assert process.wait() == 0
    return time.monotonic() - begin


@pytest.mark.parametrize("number", range(TRIALS))
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_a_random_moment_leaves_complete_files_and_a_summary(
    images: Path, checkpoint: Path, seconds: float, tmp_path: Path, sent: signal.Signals, code: int, number: int
) -> None:
    out = tmp_path / "out"
    process = start(images, checkpoint, out)
    # The first trial is in the imports, the others are anywhere.
    time.sleep(0.5 if number == 0 else random.Random(f"{sent} {number}").uniform(0, seconds))
    process.send_signal(sent)
    printed, errors = process.communicate(timeout=60)
    complete = check_files(out)
    log = tmp_path / "run.jsonl"
    assert (len([json.loads(line) for line in log.read_text().splitlines()]) if log.exists() else 0) == complete
    assert "Traceback" not in errors
    if process.returncode in (0, -sent):
        # Too late, when all was done, or before Python ran a line of ours; shells show -sent as `code`, too.
        assert complete == IMAGES or (process.returncode == -sent and not out.exists()), errors
    else:
        assert process.returncode == code, errors
    if complete:
        assert re.search(rf"\b{complete}\b", printed + errors), (
            f"the summary does not name the {complete} images: {errors}"
        )


def check_files(out: Path) -> int:
    """The number of images with all of their files, after a look at each file."""
    files = [path for path in out.rglob("*") if path.is_file()] if out.exists() else []
    kinds: Counter[str] = Counter()
    for path in files:
        match = re.fullmatch(r"(\d{3})(_mask\.png|_overlay\.png|\.json)", path.name)
        assert match, f"a leftover: {path.name}"
        kinds[match[1]] += 1
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            with Image.open(path) as image:
                image.load()
    parts = {name: count for name, count in kinds.items() if count != len(KINDS)}
    assert not parts, f"images with a part of their files: {parts}"
    return len(kinds)
