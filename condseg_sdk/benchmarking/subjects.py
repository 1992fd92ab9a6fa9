"""What can be measured: a checkpoint in every runtime, precision and device, those included that are missing here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.benchmarking import builders
from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.export.precisions import PRECISIONS
from condseg_sdk.runtimes.torch_runtime import Execution, Precision

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Normalised images, float32 (B, 3, h, w), to logits of the mask, float32 (B, h, w)."""


@dataclass(frozen=True)
class Subject:
    """One thing to measure.

    Args:
        runtime: "PyTorch" or "ONNX Runtime".
        form: of the network, such as "inference form".
        precision: such as "float16".
        device: "cpu", "cuda" or "tensorrt".
        build: makes the thing that runs, in the process that measures it; importable by name.
        file: what it is loaded from.
        missing: why it cannot be measured here; "" if it can.
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
        """Its name for a plot or a progress line."""
        return f"{self.runtime} {self.form} {self.precision} {self.device}"


def torch_subjects(checkpoint: Path, *, compiled: bool = True) -> list[Subject]:
    """The network in PyTorch, as trained and in its inference form, on the CPU and on a GPU.

    Args:
        checkpoint: a checkpoint folder.
        compiled: whether `torch.compile`, which takes minutes, is measured.
    """
    file = checkpoint / "model.safetensors"
    no_cuda = missing_device("cuda")
    skipped = "" if compiled else "not compiled here: --compile"

    def subject(form: str, precision: str, device: str, build: Callable[[], Run], missing: str) -> Subject:
        return Subject("PyTorch", form, precision, device, build, file, missing)

    def special(device: str, precision: Precision, execution: Execution) -> Callable[[], Run]:
        return partial(builders.torch_runtime, checkpoint, device=device, precision=precision, execution=execution)

    rows = [
        subject("as trained", "float32", "cpu", partial(builders.trained_form, checkpoint), ""),
        subject("inference form", "float32", "cpu", partial(builders.torch_runtime, checkpoint), ""),
        # Refused, with the reason, by processors without the instructions for it.
        subject(
            "inference form", "bfloat16", "cpu", partial(builders.torch_runtime, checkpoint, precision="bfloat16"), ""
        ),
        subject("compiled", "float32", "cpu", special("cpu", "float32", "compiled"), skipped),
    ]
    for precision in get_args(Precision):
        eager = partial(builders.torch_runtime, checkpoint, device="cuda", precision=precision)
        rows.append(subject("inference form", precision, "cuda", eager, no_cuda))
        compiled_form = special("cuda", precision, "compiled")
        rows.append(subject("compiled", precision, "cuda", compiled_form, no_cuda or skipped))
        rows.append(subject("CUDA graph", precision, "cuda", special("cuda", precision, "cuda-graph"), no_cuda))
    return rows


def onnx_subjects(files: dict[OnnxPrecision, Path | str], *, threads: int | None = None) -> list[Subject]:
    """Exported files in ONNX Runtime on every provider.

    Args:
        files: for each precision the file, or why there is none.
        threads: of ONNX Runtime for one operation on the CPU; None leaves it to ONNX Runtime.
    """
    rows = []
    for precision, file in files.items():
        for device in PRECISIONS[precision].devices:
            if isinstance(file, str):
                rows.append(Subject("ONNX Runtime", "ours", precision, device, None, None, file))
                continue
            build = partial(builders.onnx_runtime, file, device=device, threads=threads if device == "cpu" else None)
            missing = missing_device(device)
            rows.append(Subject("ONNX Runtime", "ours", precision, device, build, file, missing))
    return rows


def missing_device(device: str) -> str:
    """Why a device cannot be measured here; "" if it can, as far as one sees without trying."""
    if device == "cpu":
        return ""
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device"
    if device == "tensorrt":
        import onnxruntime

        if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
            return "no TensorRT in this onnxruntime"
    return ""
