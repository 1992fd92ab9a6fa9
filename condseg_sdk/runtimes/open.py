"""Which runtime opens a model: ONNX Runtime for .onnx files, PyTorch for checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.errors import OptionError
from condseg_sdk.forking import fork_safe
from condseg_sdk.options import check_choice
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.base import Runtime
from condseg_sdk.runtimes.torch_runtime import Execution, Precision, TorchRuntime
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import is_onnx, resolve, resolve_onnx

__all__ = ["Execution", "Precision", "RuntimeName", "open_runtime"]

RuntimeName = Literal["torch", "onnx"]


def open_runtime(
    model: str | os.PathLike[str],
    *,
    runtime: RuntimeName | None = None,
    device: str,
    precision: Precision | None = None,
    execution: Execution | None = None,
    threads: int | None = None,
    session_options: Mapping[str, str] | None = None,
    preprocessing: Preprocessing | None = None,
    **where: Any,
) -> tuple[Runtime, CheckpointConfig]:
    """A runtime for a model and its config.

    Args:
        model, runtime, device, precision, execution, threads, session_options, preprocessing: as in
            `Predictor.from_pretrained`.
        where: arguments of `resolve`.

    Raises:
        OptionError: an argument that the model's runtime does not have.
        ModelNotFoundError, CheckpointError, DeviceError: see the runtimes.
    """
    if precision is not None:
        check_choice("precision", precision, Precision)
    if execution is not None:
        check_choice("execution", execution, Execution)
    is_file = is_onnx(model)
    if runtime is not None:
        check_choice("runtime", runtime, RuntimeName)
    if runtime == "torch" and is_file:
        raise OptionError(f"runtime='torch': {model} is an ONNX file; give the checkpoint it was exported from")
    if not (is_file or runtime == "onnx"):
        _refuse("this is for ONNX files", "leave it out, or use an .onnx file", session_options=session_options)
        _refuse("this is for ONNX files", "use torch.set_num_threads for PyTorch", threads=threads)
        precision, execution = precision or "float32", execution or "eager"
        return _open_torch(
            resolve(model, **where), preprocessing, device=device, precision=precision, execution=execution
        )
    _refuse(f"{model} has its own", "export it again for another", precision=precision, preprocessing=preprocessing)
    _refuse("this is for PyTorch", "leave it out for an ONNX file", execution=execution)
    path = resolve(model, **where) if is_file else resolve_onnx(model, **where)
    # Not at the top: loading it takes a while and only .onnx files need it.
    from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime

    opened = OnnxRuntime(path, device=device, threads=threads, session_options=session_options)
    return opened, opened.config


@fork_safe
def _open_torch(
    path: Path, preprocessing: Preprocessing | None, *, device: str, precision: Precision, execution: Execution
) -> tuple[Runtime, CheckpointConfig]:
    network, config = load_checkpoint(path, preprocessing=preprocessing)
    return TorchRuntime(network, device=device, precision=precision, execution=execution), config


def _refuse(why: str, remedy: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise OptionError(f"{name}={value!r}: {why}; {remedy}")
