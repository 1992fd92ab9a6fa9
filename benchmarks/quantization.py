"""What int8 costs and gains: the tables of docs/experiments/quantization.md.

    python benchmarks/quantization.py condseg-lite-polyp kvasir_seg/images --list kvasir_seg/split_val120.txt

The checkpoint is quantized in several ways: with each method of finding the range of an activation, and with each
convolution that stays float32 by default in int8, too. Masks are compared with those of float32 on the listed images,
at the size of the network. The time is that of the processor for one image with one thread, which other work on the
machine changes least; a row's value is the lower quartile over all rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from condseg_sdk import CondsegError, OnnxOptions
from condseg_sdk.checkpoints.onnx_metadata import ExportInfo, write_metadata
from condseg_sdk.export.quantize import CalibrationMethod, sensitive_convolutions, to_int8
from condseg_sdk.export.trace import trace
from condseg_sdk.images.load import find_images, load_image
from condseg_sdk.metrics import score
from condseg_sdk.preprocessing import sigmoid
from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve

OPSET = 18
ROUNDS = 15
Masks = NDArray[np.bool_]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder of a checkpoint")
    parser.add_argument("images", help="folder or pattern of images")
    parser.add_argument("--list", type=Path, required=True, help="text file with the names of the images to compare on")
    parser.add_argument("--calibration", type=int, default=32, help="number of other images (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="device of ONNX Runtime (default: %(default)s)")
    options = parser.parse_args()
    try:
        measure(options)
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(options: argparse.Namespace) -> None:
    """Quantize, compare and print the table."""
    network, config = load_checkpoint(resolve(options.model))
    names = options.list.read_text(encoding="utf-8").split()
    paths = find_images(options.images)
    compared = [config.preprocessing(load_image(path)) for path in paths if path.stem in names]
    others = [path for path in paths if path.stem not in names][: options.calibration]
    samples = [config.preprocessing(load_image(path)) for path in others]
    model = trace(network, size=config.preprocessing.size, dynamic=False, uncertainty=False, opset=OPSET)

    def runtime_of(graph: Any, folder: str, name: str) -> OnnxRuntime:
        info = ExportInfo("float32", False, False, False, OPSET, "0")
        onnx.helper.set_model_props(graph, write_metadata(config, info))
        path = Path(folder, f"{name}.onnx")
        onnx.save(graph, path)
        return OnnxRuntime(path, device=options.device, options=OnnxOptions(threads=1))

    def masks_of(runtime: OnnxRuntime) -> list[Masks]:
        logits = (runtime.run(image[None], branch_uncertainty=False).mask[0] for image in compared)
        return [sigmoid(x) >= config.threshold for x in logits]

    with tempfile.TemporaryDirectory() as folder:
        reference = runtime_of(model, folder, "float32")
        expected = masks_of(reference)
        print("| int8 | Dice, mean | least | time | against float32 |")
        print("|---|---:|---:|---:|---:|")
        for name, make in variants(model, samples).items():
            quantized = runtime_of(make(), folder, "int8")
            dice = [score(ours, theirs).dice for ours, theirs in zip(masks_of(quantized), expected, strict=True)]
            base, own = processor_times([reference, quantized], compared[0])
            print(f"| {name} | {np.mean(dice):.4f} | {min(dice):.4f} | {own:.1f} ms | {base / own:.2f}x |", flush=True)


def variants(model: Any, samples: list[NDArray[np.float32]]) -> dict[str, Callable[[], Any]]:
    """Return what to compare: each makes a quantized model."""
    kept = sensitive_convolutions(model)
    encoder = kept[: len(kept) - one_channel(model)]
    found: dict[str, Callable[[], Any]] = {
        f"as exported, {method}": lambda method=method: to_int8(model, samples, method=method)  # type: ignore[misc]
        for method in get_args(CalibrationMethod)
    }
    for name in encoder:
        rest = [other for other in kept if other != name]
        found[f"also {name}, {weights_of(model, name)}"] = lambda rest=rest: to_int8(model, samples, keep_float=rest)  # type: ignore[misc]
    logits = [name for name in kept if name not in encoder]
    found["also all of the encoder"] = lambda: to_int8(model, samples, keep_float=logits)
    found["also those with one output channel"] = lambda: to_int8(model, samples, keep_float=encoder)
    return found


def one_channel(model: Any) -> int:
    """Return the number of convolutions with one output channel, which are the last in the list."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return sum(node.op_type == "Conv" and shapes.get(node.input[1], [0])[0] == 1 for node in model.graph.node)


def weights_of(model: Any, name: str) -> str:
    """Return the shape of a convolution's weights."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return next("x".join(map(str, shapes[node.input[1]])) for node in model.graph.node if node.name == name)


def processor_times(runtimes: list[OnnxRuntime], image: NDArray[np.float32]) -> list[float]:
    """Measure runtimes in turn; returns milliseconds."""
    times: list[list[float]] = [[] for _ in runtimes]
    for _ in range(ROUNDS):
        for runtime, found in zip(runtimes, times, strict=True):
            runtime.run(image[None], branch_uncertainty=False)
            start = time.process_time()
            runtime.run(image[None], branch_uncertainty=False)
            found.append(1e3 * (time.process_time() - start))
    return [float(np.percentile(found, 25)) for found in times]


if __name__ == "__main__":
    raise SystemExit(main())
