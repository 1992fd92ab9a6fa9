"""How each subject is made, in the process that measures it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from condseg_sdk.runtimes.base import Runtime
from condseg_sdk.runtimes.inference_form import inference_form
from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime
from condseg_sdk.runtimes.torch_runtime import Precision, TorchRuntime
from condseg_sdk.weights.checkpoint import load_checkpoint

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Method = Literal["compile", "cuda graph"]


def of_runtime(runtime: Runtime) -> Run:
    return lambda batch: runtime.run(batch, uncertainty=False).mask


def torch_runtime(checkpoint: Path, *, device: str = "cpu", precision: Precision = "float32") -> Run:
    """What `Predictor.from_pretrained(checkpoint)` runs."""
    network, _ = load_checkpoint(checkpoint)
    return of_runtime(TorchRuntime(network, device=device, precision=precision))


def onnx_runtime(file: Path, *, device: str, threads: int | None) -> Run:
    """What `Predictor.from_pretrained("model.onnx")` runs."""
    return of_runtime(OnnxRuntime(file, device=device, threads=threads))


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


def fixed_form(checkpoint: Path, *, size: tuple[int, int], device: str, precision: str, method: Method) -> Run:
    """The inference form for images of one size, compiled or recorded as a CUDA graph at the first call."""
    network, _ = load_checkpoint(checkpoint)
    form = inference_form(network, size=size).to(device)
    form = form.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype: torch.dtype = getattr(torch, precision)
    forward: Callable[[Tensor], tuple[Tensor, ...]] = torch.compile(form) if method == "compile" else form
    graphs: dict[int, Callable[[Tensor], Tensor]] = {}

    def step(images: Tensor) -> Tensor:
        half = dtype != torch.float32
        with torch.autocast(device, dtype, cache_enabled=method == "compile") if half else nullcontext():
            return forward(images)[0][:, 0].float()

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            images = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            if method == "cuda graph" and len(batch) not in graphs:
                graphs[len(batch)] = record(step, images)
            answer: NDArray[np.float32] = graphs.get(len(batch), step)(images).cpu().numpy()
        return answer

    return run


def record(step: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[Tensor], Tensor]:
    """A CUDA graph of one step for inputs of this shape; its answer is overwritten by the next call."""
    held = images.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # cuDNN chooses its algorithms, allocations happen
            step(held)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = step(held)

    def replay(inputs: Tensor) -> Tensor:
        held.copy_(inputs)
        graph.replay()
        return answer

    return replay
