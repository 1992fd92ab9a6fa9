"""The time of a prediction in every runtime of a CPU, alone and beside busy processes.

    python benchmarks/beside.py --model condseg-lite-polyp
    python benchmarks/beside.py --images kvasir_seg/images --threads 1 --busy 0

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
from typing import Any

BUSY = "while True: pass"
ONNX_RUNTIME = "ONNX Runtime, float32"
SETTLE = 0.5  # seconds until busy processes have started


@dataclass
class Subject:
    """A way of running the network.

    Attributes:
        name: For the table.
        model: Name of a checkpoint, or an .onnx file.
        environment: Variables of the process.
        device: Name of the device.
        precision: Precision of the arithmetic of an .onnx file; "" for the default.
        milliseconds: Times of single predictions, by the number of busy processes beside.
    """

    name: str
    model: str
    environment: dict[str, str | None] = field(default_factory=lambda: {"OMP_WAIT_POLICY": None})
    device: str = "cpu"
    precision: str = ""
    milliseconds: dict[int, list[float]] = field(default_factory=dict)

    def start(self, threads: int) -> subprocess.Popen[str]:
        """Start the process, and wait until it has predicted once.

        Args:
            threads: Number of threads; 0 for the default of the runtime.
        """
        environment = {**os.environ, **{name: value for name, value in self.environment.items() if value is not None}}
        for name in (name for name, value in self.environment.items() if value is None):
            environment.pop(name, None)
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", self.model, self.device, self.precision, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{self.name} did not start")
        return process


def serve(model: str, device: str, precision: str, threads: int) -> None:
    """Predict as often as each line of the input says, and print the times."""
    import numpy as np

    from condseg_sdk import OnnxOptions, Predictor

    if model.endswith(".onnx"):
        options: dict[str, Any] = {"precision": precision or None, "threads": threads or None}
        predictor = Predictor.from_pretrained(model, device=device, runtime=OnnxOptions(**options))
    else:
        import torch

        if threads:
            torch.set_num_threads(threads)
        predictor = Predictor.from_pretrained(model, device=device)
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
    parser.add_argument("--images", help="folder or pattern of images to calibrate int8 with (default: no int8)")
    parser.add_argument("--threads", type=int, default=0, help="number of threads (default: that of the runtime)")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        model, device, precision, threads = options.serve
        serve(model, device, precision, int(threads))
        return
    with tempfile.TemporaryDirectory() as folder:
        subjects = list_subjects(options.model, options.images, Path(folder))
        measure(subjects, options.busy, options.rounds, options.repetitions, options.threads)
    onnx = next(subject for subject in subjects if subject.name == ONNX_RUNTIME)
    columns = [f"{n} busy" for n in options.busy]
    print("| one image, median ms | " + " | ".join([*columns, "ratio to quiet", "times ONNX Runtime float32"]) + " |")
    print("|---" * (len(columns) + 3) + "|")
    for subject in subjects:
        medians = [statistics.median(subject.milliseconds[n]) for n in options.busy]
        ratios = ", ".join(f"{median / medians[0]:.2f}" for median in medians[1:])
        gain = statistics.median(onnx.milliseconds[options.busy[0]]) / medians[0]
        times = " | ".join(f"{median:.0f}" for median in medians)
        print(f"| {subject.name} | {times} | {ratios} | {gain:.2f} |")


def list_subjects(model: str, images: str | None, folder: Path) -> list[Subject]:
    """Export the checkpoint and list every way of running it on a CPU, as far as this machine has it."""
    from condseg_sdk import DeviceError, Predictor
    from condseg_sdk.images.load import find_images, load_image
    from condseg_sdk.runtimes.providers import find_provider

    predictor = Predictor.from_pretrained(model, device="cpu")
    exact, int8 = str(folder / "float32.onnx"), str(folder / "int8.onnx")
    predictor.export_onnx(exact, dynamic=False)
    subjects = [
        Subject("PyTorch, threads spin (its default)", model),
        Subject("PyTorch, OMP_WAIT_POLICY=PASSIVE", model, {"OMP_WAIT_POLICY": "PASSIVE"}),
        Subject(ONNX_RUNTIME, exact),
    ]
    if images is not None:
        calibration = [load_image(path) for path in find_images(images)[:32]]
        predictor.export_onnx(int8, precision="int8", dynamic=False, calibration=calibration)
        subjects.append(Subject("ONNX Runtime, int8", int8))
    try:
        find_provider("openvino")[0].check("openvino")
    except DeviceError as error:
        print(f"without OpenVINO: {error}", file=sys.stderr)
        return subjects
    subjects.append(Subject("OpenVINO, float32", exact, device="openvino"))
    subjects.append(Subject("OpenVINO, bfloat16", exact, device="openvino", precision="bfloat16"))
    if images is not None:
        subjects.append(Subject("OpenVINO, int8", int8, device="openvino"))
        subjects.append(Subject("OpenVINO, int8 and bfloat16", int8, device="openvino", precision="bfloat16"))
    return subjects


def measure(subjects: list[Subject], numbers: list[int], rounds: int, repetitions: int, threads: int) -> None:
    """Fill in `milliseconds` of all subjects, in turn."""
    processes = [subject.start(threads) for subject in subjects]
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
