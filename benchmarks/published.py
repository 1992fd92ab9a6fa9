"""The network as the paper describes it: windows unfolded, multiplied and folded back, auxiliary heads on.

It is the baseline of all measurements of speed, with the same weights and the same result as `ConDSeg`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from copy import deepcopy
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.benchmarking.subjects import Run, Subject, missing_device
from condseg_sdk.models import ConDSeg
from condseg_sdk.models.cdfa import TAPS, WINDOW, ContrastDrivenFeatureAggregation
from condseg_sdk.weights.checkpoint import load_checkpoint


class UnfoldedAggregation(ContrastDrivenFeatureAggregation):
    """Paper, section "Contrast-Driven Feature Aggregation", step by step."""

    def _attend(self, guide: Tensor, scores: nn.Conv2d, values: Tensor) -> Tensor:
        batch, channels, height, width = values.shape
        pixels = height * width
        windows = F.unfold(values, WINDOW, padding=1).view(batch, self.heads, channels // self.heads, TAPS, pixels)
        windows = windows.permute(0, 1, 4, 3, 2)  # (B, heads, pixels, 9, head_dim)
        logits = scores(guide).flatten(2).view(batch, self.heads, TAPS, TAPS, pixels) * self.scale
        attention = logits.permute(0, 1, 4, 2, 3).softmax(-1)
        mixed = (attention @ windows).permute(0, 1, 4, 3, 2).reshape(batch, channels * TAPS, pixels)
        projected: Tensor = self.projection(F.fold(mixed, (height, width), WINDOW, padding=1))
        return projected


class PublishedForm(nn.Module):
    """A copy of a network in the form of the paper.

    Args:
        network: The network; not changed.
        trainable: Whether it is in training mode. Otherwise it is in eval mode, without gradients.
    """

    def __init__(self, network: ConDSeg, *, trainable: bool = False) -> None:
        super().__init__()
        self.network = deepcopy(network).train(trainable).requires_grad_(trainable)
        for module in self.network.modules():
            if type(module) is ContrastDrivenFeatureAggregation:
                module.__class__ = UnfoldedAggregation

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the logits of mask, foreground, background and uncertainty, each (B, 1, H, W)."""
        # The published form keeps all intermediate results for the backward pass.
        places = [patch(f"condseg_sdk.models.{module}.checkpointed", _kept) for module in ("layers", "cdfa")]
        with places[0], places[1]:
            return tuple(x for x in self.network(images, aux=True) if x is not None)


def _kept(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    return function(*inputs)


def torch_form(checkpoint: Path, *, device: str = "cpu") -> Run:
    """Load the published form in eager PyTorch."""
    form = PublishedForm(load_checkpoint(checkpoint)[0]).to(device)

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            mask: NDArray[np.float32] = form(torch.from_numpy(batch).to(device))[0][:, 0].cpu().numpy()
        return mask

    return run


def onnx_form(file: Path, *, threads: int | None) -> Run:
    """Load the exported published form in ONNX Runtime on the CPU."""
    import onnxruntime  # after condseg_sdk, which switches its telemetry off

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        mask: NDArray[np.float32] = session.run(None, {"images": batch})[0][:, 0]
        return mask

    return run


def export(checkpoint: Path, file: Path, *, batch: int, size: int) -> Path:
    """Export the published form with PyTorch's exporter, for one batch and size, which become constants."""
    form = PublishedForm(load_checkpoint(checkpoint)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            form,
            (torch.zeros(batch, 3, size, size),),
            dynamo=True,
            input_names=["images"],
            opset_version=18,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.save(file, external_data=False)
    return file


def subjects(
    checkpoint: Path, work: Path, batch: int, size: int, threads: int | None, devices: Collection[str]
) -> list[Subject]:
    """List the published form on every runtime and on these devices, eager PyTorch on the CPU first."""
    weights = checkpoint / "model.safetensors"
    no_cuda = missing_device("cuda")
    rows = [
        Subject(
            "PyTorch", "published", "float32", device, partial(torch_form, checkpoint, device=device), weights, missing
        )
        for device, missing in (("cpu", ""), ("cuda", no_cuda))
    ]
    if "cpu" in devices:  # the export takes minutes
        file = export(checkpoint, work / f"published-{batch}-{size}.onnx", batch=batch, size=size)
        build = partial(onnx_form, file, threads=threads)
        rows.append(Subject("ONNX Runtime", "published", "float32", "cpu", build, file))
    for device, name in (("cuda", "CUDA"), ("tensorrt", "TensorRT")):
        missing = f"ONNX Runtime has no Col2Im for {name}"
        rows.append(Subject("ONNX Runtime", "published", "float32", device, None, None, missing))
    return rows
