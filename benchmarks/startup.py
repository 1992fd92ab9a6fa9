"""Seconds from the start of a process to its end, for the commands that somebody waits for.

    python benchmarks/startup.py condseg-lite-polyp examples/images/synthetic_0.jpg

Each command runs in a process of its own; all of them take turns. The first export is measured with an empty cache each
time, and what it loads afterwards with the cache that it has filled.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPEN = "import sys; from condseg_sdk import Predictor; Predictor.from_pretrained(sys.argv[1], runtime='onnx')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder of a checkpoint")
    parser.add_argument("image", help="path of an image")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    condseg = [sys.executable, "-m", "condseg_sdk.cli"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = work / "model.onnx"
        run([*condseg, "export", options.model, str(model), "--static", "--no-verify"])
        predict = [*condseg, "predict", options.image, "--out", str(work / "out"), "--overwrite", "--model"]
        commands = {
            "condseg --help": [*condseg, "--help"],
            "condseg models": [*condseg, "models"],
            "condseg predict, one image, with an .onnx file": [*predict, str(model), "--device", "cpu"],
            "condseg predict, one image, with a checkpoint": [*predict, options.model, "--device", "cpu"],
            "from_pretrained(name, runtime='onnx'), first export": [sys.executable, "-c", OPEN, options.model],
            "from_pretrained(name, runtime='onnx'), from the cache": [sys.executable, "-c", OPEN, options.model],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            shutil.rmtree(work / "assets", ignore_errors=True)
            for name, command in commands.items():
                seconds[name].append(run(command, HF_ASSETS_CACHE=str(work / "assets")))
    print("| command | median s | smallest s | largest s |")
    print("|---|---|---|---|")
    for name, own in seconds.items():
        print(f"| {name} | {statistics.median(own):.2f} | {min(own):.2f} | {max(own):.2f} |")


def run(command: list[str], **variables: str) -> float:
    """Run a command and return its seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **variables})
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
