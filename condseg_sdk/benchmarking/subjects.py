"""The subjects of a benchmark: a checkpoint in every runtime, precision and device, even those not available here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.errors import DeviceError
from condseg_sdk.export.precisions import PRECISIONS
from condseg_sdk.runtimes.base import Runtime, uses_all_cores
from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime
from condseg_sdk.runtimes.options import Execution, OnnxOptions, Precision, TorchOptions
from condseg_sdk.runtimes.providers import find_provider
from condseg_sdk.runtimes.torch_runtime import TorchRuntime
from condseg_sdk.weights.checkpoint import load_checkpoint

__all__ = ["Run", "Subject", "missing_device", "onnx_subjects", "run_trained_form", "torch_subjects"]

OPENVINO = "openvino:cpu"
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Computes the logits of the mask, float32 (B, h, w), from normalized images, float32 (B, 3, h, w)."""


@dataclass(frozen=True)
class Subject:
    """One thing to measure.

    Attributes:
        runtime: "PyTorch", "ONNX Runtime" or "OpenVINO".
        form: Form of the network, such as "inference form".
        precision: Precision of the arithmetic, such as "float16".
        device: "cpu", "openvino:cpu", "cuda" or "tensorrt".
        build: Makes the function to measure, in the process that measures it. It must be importable by name.
        file: File that it is loaded from.
        missing: Reason why it cannot be measured here, or "".
    """

    runtime: str
    form: str
    precision: str
    device: str
    build: Callable[[], Run] | None
    file: Path | None = None
    missing: str = ""

    @property
    def label(self) -> str:
        """Name of the subject in progress messages."""
        return f"{self.runtime} {self.form} {self.precision} {self.device}"


def torch_subjects(checkpoint: Path, *, compiled: bool = True) -> list[Subject]:
    """List the network in PyTorch, as trained and in its inference form, on the CPU and on a GPU.

    Args:
        checkpoint: Folder of the checkpoint.
        compiled: Whether to measure `torch.compile`, which takes minutes.
    """
    no_cuda = missing_device("cuda")
    skipped = "" if compiled else "not measured without --compile"

    def subject(
        form: str, precision: Precision, device: str, missing: str = "", *, execution: Execution = "eager"
    ) -> Subject:
        build = partial(_run_inference_form, checkpoint, device=device, precision=precision, execution=execution)
        return Subject("PyTorch", form, precision, device, build, checkpoint / "model.safetensors", missing)

    rows = [
        Subject(
            "PyTorch",
            "as trained",
            "float32",
            "cpu",
            partial(run_trained_form, checkpoint),
            checkpoint / "model.safetensors",
        ),
        subject("inference form", "float32", "cpu"),
        subject("inference form", "bfloat16", "cpu"),  # processors without the instructions refuse it with the reason
        subject("compiled", "float32", "cpu", skipped, execution="compiled"),
    ]
    for precision in get_args(Precision):
        rows += [
            subject("inference form", precision, "cuda", no_cuda),
            subject("compiled", precision, "cuda", no_cuda or skipped, execution="compiled"),
            subject("CUDA graph", precision, "cuda", no_cuda, execution="cuda-graph"),
        ]
    return rows


def onnx_subjects(files: Mapping[OnnxPrecision, Path | str], *, threads: int | None = None) -> list[Subject]:
    """List the exported files on every device.

    Args:
        files: For each precision the file, or the reason why there is none.
        threads: Number of threads for one operation on the CPU; None leaves it to ONNX Runtime.
    """
    rows = []
    for precision, file in files.items():
        for provider in (find_provider(name)[0] for name in PRECISIONS[precision].devices):
            device, runtime = provider.device, "OpenVINO" if provider.openvino else "ONNX Runtime"
            if isinstance(file, str):
                rows.append(Subject(runtime, "ours", precision, device, None, missing=file))
                continue
            build = partial(_run_onnx, file, device=device, threads=threads if uses_all_cores(device) else None)
            rows.append(Subject(runtime, "ours", precision, device, build, file, missing_device(device)))
    exact = files.get("float32")
    if isinstance(exact, Path):  # a processor without the instructions refuses it with the reason
        build = partial(_run_onnx, exact, device=OPENVINO, threads=threads, precision="bfloat16")
        rows.append(Subject("OpenVINO", "ours", "bfloat16", OPENVINO, build, exact, missing_device(OPENVINO)))
    return rows


def missing_device(device: str) -> str:
    """Return the reason why a device cannot be measured here, or "" as far as can be told without trying."""
    if uses_all_cores(device):
        try:
            find_provider(device)[0].check(device)
        except DeviceError as error:
            return str(error)
        return ""
    if not torch.cuda.is_available():
        return "no CUDA device"
    if device == "tensorrt":
        import onnxruntime

        if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
            return "no TensorRT in this onnxruntime"
    return ""


def run_trained_form(checkpoint: Path) -> Run:
    """Load the network in the form that is trained, in PyTorch on the CPU."""
    network = load_checkpoint(checkpoint)[0].eval()

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            mask: NDArray[np.float32] = network(torch.from_numpy(batch)).mask[:, 0].numpy()
        return mask

    return run


def _run_inference_form(checkpoint: Path, *, device: str, precision: Precision, execution: Execution) -> Run:
    """Load what `Predictor.from_pretrained(checkpoint)` runs."""
    network, _ = load_checkpoint(checkpoint)
    options = TorchOptions(precision=precision, execution=execution)
    return _run_mask(TorchRuntime(network, device=device, options=options))


def _run_onnx(file: Path, *, device: str, threads: int | None, precision: Precision | None = None) -> Run:
    """Load what `Predictor.from_pretrained("model.onnx")` runs."""
    return _run_mask(OnnxRuntime(file, device=device, options=OnnxOptions(threads=threads, precision=precision)))


def _run_mask(runtime: Runtime) -> Run:
    return lambda batch: runtime.run(batch, branch_uncertainty=False).mask
