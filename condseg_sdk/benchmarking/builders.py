"""How each subject is made, in the process that measures it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from condseg_sdk.runtimes.base import Runtime
from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime
from condseg_sdk.runtimes.options import Execution, OnnxOptions, Precision, TorchOptions
from condseg_sdk.runtimes.torch_runtime import TorchRuntime
from condseg_sdk.weights.checkpoint import load_checkpoint

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def of_runtime(runtime: Runtime) -> Run:
    return lambda batch: runtime.run(batch, branch_uncertainty=False).mask


def torch_runtime(
    checkpoint: Path, *, device: str = "cpu", precision: Precision = "float32", execution: Execution = "eager"
) -> Run:
    """What `Predictor.from_pretrained(checkpoint)` runs."""
    network, _ = load_checkpoint(checkpoint)
    options = TorchOptions(precision=precision, execution=execution)
    return of_runtime(TorchRuntime(network, device=device, options=options))


def onnx_runtime(file: Path, *, device: str, threads: int | None) -> Run:
    """What `Predictor.from_pretrained("model.onnx")` runs."""
    return of_runtime(OnnxRuntime(file, device=device, options=OnnxOptions(threads=threads)))


def eager(module: nn.Module) -> Run:
    """A module whose first output is the mask's logits, in plain PyTorch on the CPU."""

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            mask: NDArray[np.float32] = module(torch.from_numpy(batch))[0][:, 0].numpy()
        return mask

    return run


def trained_form(checkpoint: Path) -> Run:
    """The network as training has it."""
    network, _ = load_checkpoint(checkpoint)
    return eager(network.eval())
