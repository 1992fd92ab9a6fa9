"""Which runtime opens a model: ONNX Runtime for .onnx files, PyTorch for checkpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from condseg_sdk.errors import OptionError
from condseg_sdk.models.config import CheckpointConfig
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.base import Runtime
from condseg_sdk.runtimes.torch_runtime import Precision, TorchRuntime
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve

__all__ = ["Precision", "open_runtime"]


def open_runtime(
    model: str | os.PathLike[str],
    *,
    device: str,
    precision: Precision | None,
    threads: int | None,
    preprocessing: Preprocessing | None = None,
    **where: Any,
) -> tuple[Runtime, CheckpointConfig]:
    """A runtime for a model and its config.

    Args:
        model, device, precision, threads, preprocessing: as in `Predictor.from_pretrained`.
        where: arguments of `resolve`.

    Raises:
        OptionError: an argument that the model's runtime does not have.
        ModelNotFoundError, CheckpointError, DeviceError: see the runtimes.
    """
    is_onnx = Path(model).suffix.lower() == ".onnx"
    if is_onnx and (precision is not None or preprocessing is not None):
        given = f"precision={precision!r}" if precision is not None else f"preprocessing={preprocessing}"
        raise OptionError(f"{given}: {model} has its own; export it again for another")
    if threads is not None and not is_onnx:
        raise OptionError("threads= is for .onnx files: use torch.set_num_threads for PyTorch")
    path = resolve(model, **where)
    if is_onnx:
        # Not at the top: loading it takes a while and only .onnx files need it.
        from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime

        runtime = OnnxRuntime(path, device=device, threads=threads)
        return runtime, runtime.config
    network, config = load_checkpoint(path, preprocessing=preprocessing)
    return TorchRuntime(network, device=device, precision=precision or "float32"), config
