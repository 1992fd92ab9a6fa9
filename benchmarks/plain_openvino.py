"""device="openvino" against OpenVINO's own API, on the same file, in the same precision, with the same threads.

    python benchmarks/plain_openvino.py condseg-lite-polyp --threads 1

Both compute the same batch in turn, in one process. The ratio of the medians is what this package adds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from condseg_sdk import OnnxOptions, Predictor
from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime
from condseg_sdk.runtimes.openvino_session import find_processor
from condseg_sdk.runtimes.options import Precision

HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="condseg-lite-polyp", help="name or folder of a checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    core = find_processor("CPU", "openvino", "CPU")
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    batch = np.random.default_rng(0).standard_normal((1, 3, *predictor.preprocessing.size)).astype(np.float32)
    print("| precision | OpenVINO's API, ms | device='openvino', ms | ratio |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = predictor.export_onnx(Path(folder) / "model.onnx", dynamic=False, verify=False).path
        for precision, hint in HINTS.items():
            ours = OnnxRuntime(
                path, device="openvino", options=OnnxOptions(precision=precision, threads=options.threads)
            )
            config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": options.threads}
            plain = core.compile_model(str(path), "CPU", config)
            theirs, mine = interleave(
                [partial(plain, batch), partial(ours.run, batch, branch_uncertainty=False)], options.rounds
            )
            print(f"| {precision} | {theirs:.1f} | {mine:.1f} | {mine / theirs:.2f} |")


def interleave(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median time of each call in milliseconds; all of them take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 3):
        for own, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            if number >= 3:  # the first ones allocate
                own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


if __name__ == "__main__":
    main()
