"""Throughput of a folder of images compared with that of the network alone, and the time of the other stages.

    python benchmarks/throughput.py condseg-lite-polyp kvasir_seg/images --count 200
    python benchmarks/throughput.py condseg-lite-polyp kvasir_seg/images --device cuda --batch-size 32

"Latency" is the time from one decoded frame to its overlay, one at a time, as for a camera: median and 95th percentile.
"Bare" is the same runtime on prepared batches of the same images, without reading and resizing. Both are measured in
turn within each repetition, so that a drift of the machine affects both alike; the ratio is the median over
repetitions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from condseg_sdk import CondsegError, Predictor, TorchOptions
from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.images.load import find_images, load_image
from condseg_sdk.runtimes.options import Execution, Precision

LATENCY_FRAMES = 50


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Measure wall time and the processor time of all threads."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def stages(predictor: Predictor, paths: list[Path]) -> dict[str, float]:
    """Measure the mean processor time per image of each stage, in milliseconds, with one thread."""
    totals = {"decode": 0.0, "resize": 0.0, "normalize": 0.0}
    for path in paths:
        start = time.thread_time()
        image = load_image(path)
        decoded = time.thread_time()
        small = predictor.preprocessing.resize(image)
        resized = time.thread_time()
        predictor.preprocessing.normalize(small)
        for name, value in zip(totals, (decoded - start, resized - decoded, time.thread_time() - resized), strict=True):
            totals[name] += 1e3 * value / len(paths)
    return totals


def variants(
    options: argparse.Namespace, exported: Callable[[OnnxPrecision], Path]
) -> dict[str, Callable[[], Predictor]]:
    """Return what to measure on a device, by name; each is opened when its turn comes."""

    def torch_predictor(precision: Precision, execution: Execution) -> Predictor:
        runtime = TorchOptions(precision=precision, execution=execution)
        return Predictor.from_pretrained(options.model, device=options.device, runtime=runtime)

    def onnx_predictor(precision: OnnxPrecision) -> Predictor:
        return Predictor.from_pretrained(exported(precision), device=options.device)

    forms: list[tuple[Precision, Execution]] = [("float32", "eager")]
    precisions: list[OnnxPrecision] = ["float32"]
    if options.device != "cpu":
        forms += [("float16", "eager"), ("float16", "cuda-graph"), ("bfloat16", "cuda-graph")]
        precisions.append("float16")
    return {
        **{
            f"PyTorch {precision} {execution}": partial(torch_predictor, precision, execution)
            for precision, execution in forms
        },
        **{f"ONNX Runtime {precision}": partial(onnx_predictor, precision) for precision in precisions},
    }


def overlay(predictor: Predictor, frame: NDArray[np.uint8]) -> None:
    """Do what a live view does with one decoded frame."""
    predictor(frame).overlay()


def measure(name: str, predictor: Predictor, paths: list[Path], batch_size: int, repetitions: int) -> None:
    """Measure one runtime and print its line."""
    runtime = predictor._runtime
    inputs = [predictor.preprocessing(load_image(path)) for path in paths]
    batches = [np.stack(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size)]
    del inputs

    def bare() -> None:
        for batch in batches:
            runtime.run(batch, branch_uncertainty=False)

    def folder() -> None:
        predictor.predict([*paths], batch_size=batch_size)

    frames = [load_image(path) for path in paths[:LATENCY_FRAMES]]
    runtime.run(batches[0], branch_uncertainty=False)  # warm-up
    predictor.predict(paths[:batch_size], batch_size=batch_size)
    pairs = [(seconds(bare), seconds(folder)) for _ in range(repetitions)]
    waits = [seconds(partial(overlay, predictor, frame))[0] for frame in frames]
    median, high = (1e3 * value for value in np.percentile(waits, (50, 95)))
    walls = [statistics.median(x) for x in zip(*((b[0], f[0]) for b, f in pairs), strict=True)]
    processor = [statistics.median(x) for x in zip(*((b[1], f[1]) for b, f in pairs), strict=True)]
    ratios = [b[0] / f[0] for b, f in pairs]
    rates = [len(paths) / wall for wall in walls]
    costs = [1e3 * value / len(paths) for value in processor]
    print(
        f"{name:30} {rates[0]:8.1f} {rates[1]:10.1f} {statistics.median(ratios):8.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}) {costs[0]:12.1f} {costs[1]:12.1f} "
        f"{median:10.1f} {high:8.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder of a checkpoint")
    parser.add_argument("images", help="folder, list or pattern of images")
    parser.add_argument(
        "--count", type=int, default=200, help="number of images, the first ones by name (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    paths = find_images(options.images)[: options.count]
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    print(
        f"{len(paths)} images, batch {options.batch_size}, {options.repetitions} repetitions, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    )
    parts = ", ".join(f"{name} {value:.2f}" for name, value in stages(predictor, paths).items())
    print(f"processor ms per image outside the network: {parts}")
    print(
        f"{'runtime':30} {'bare/s':>8} {'folder/s':>10} {'ratio':>8} {'':16} {'bare CPU ms':>12} {'folder':>12} "
        f"{'latency ms':>10} {'95 %':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:

        def exported(precision: OnnxPrecision) -> Path:
            return predictor.export_onnx(Path(folder, f"{precision}.onnx"), precision=precision, verify=False).path

        for name, opened in variants(options, exported).items():
            try:
                measure(name, opened(), paths, options.batch_size, options.repetitions)
            except CondsegError as error:
                print(f"{name:30} {error}", flush=True)


if __name__ == "__main__":
    main()
