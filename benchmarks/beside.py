"""The time of a prediction beside busy processes: none, one, two.

    python benchmarks/beside.py --model condseg-lite-polyp

Each way of running the network is a process of its own, loaded once. In every round each of them predicts the same
image a few times with every number of busy processes beside it, so that a drift of the machine meets all alike. A
figure is the median over all repetitions; the last columns divide it by that of the quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

BUSY = "while True: pass"
SETTLE = 0.5  # seconds until busy processes have started


@dataclass
class Subject:
    """A way of running the network.

    Attributes:
        name: For the table.
        model: Name of a checkpoint, or an .onnx file.
        environment: Variables of the process.
        milliseconds: Times of single predictions, by the number of busy processes beside.
    """

    name: str
    model: str
    environment: dict[str, str | None]
    milliseconds: dict[int, list[float]] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        """Start the process, and wait until it has predicted once."""
        environment = {**os.environ, **{name: value for name, value in self.environment.items() if value is not None}}
        for name in (name for name, value in self.environment.items() if value is None):
            environment.pop(name, None)
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", self.model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{self.name} did not start")
        return process


def serve(model: str) -> None:
    """Predict as often as each line of the input says, and print the times."""
    import numpy as np

    from condseg_sdk import Predictor

    predictor = Predictor.from_pretrained(model, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    predictor(image)
    print("ready", flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            predictor(image)
            times.append(1e3 * (time.perf_counter() - start))
        print(json.dumps(times), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="condseg-lite-polyp", help="name or folder of a checkpoint")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy processes beside")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=4, help="predictions in a turn (default: %(default)s)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    from condseg_sdk import Predictor

    with tempfile.TemporaryDirectory() as folder:
        onnx = str(Path(folder) / "model.onnx")
        Predictor.from_pretrained(options.model, device="cpu").export_onnx(onnx)
        subjects = [
            Subject("PyTorch, threads spin (its default)", options.model, {"OMP_WAIT_POLICY": None}),
            Subject("PyTorch, OMP_WAIT_POLICY=PASSIVE", options.model, {"OMP_WAIT_POLICY": "PASSIVE"}),
            Subject("ONNX Runtime", onnx, {"OMP_WAIT_POLICY": None}),
        ]
        measure(subjects, options.busy, options.rounds, options.repetitions)
    print("| one image, median ms | " + " | ".join(f"{n} busy" for n in options.busy) + " | ratio to quiet |")
    print("|---" * (len(options.busy) + 2) + "|")
    for subject in subjects:
        medians = [statistics.median(subject.milliseconds[n]) for n in options.busy]
        ratios = ", ".join(f"{median / medians[0]:.2f}" for median in medians[1:])
        print(f"| {subject.name} | " + " | ".join(f"{median:.0f}" for median in medians) + f" | {ratios} |")


def measure(subjects: list[Subject], numbers: list[int], rounds: int, repetitions: int) -> None:
    """Fill in `milliseconds` of all subjects, in turn."""
    processes = [subject.start() for subject in subjects]
    try:
        for _ in range(rounds):
            for number in numbers:
                busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
                time.sleep(SETTLE)
                try:
                    for subject, process in zip(subjects, processes, strict=True):
                        assert process.stdin is not None
                        assert process.stdout is not None
                        print(repetitions, file=process.stdin, flush=True)
                        subject.milliseconds.setdefault(number, []).extend(json.loads(process.stdout.readline()))
                finally:
                    for one in busy:
                        one.kill()
                        one.wait()
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
