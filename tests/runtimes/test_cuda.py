"""What runs on a CUDA device alone, with stand-ins for its parts: streams, graphs and libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from condseg_sdk.runtimes import cuda_libraries
from condseg_sdk.runtimes.torch_runtime import CudaGraphCache, _convert_weights, _without_tf32


class Doubling:
    """A module; while a graph is recorded, the graph remembers what the module reads and writes."""

    def __init__(self) -> None:
        self.recording: Graph | None = None

    def __call__(self, images: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
        results = (images * 2,) * (1 + uncertainty)
        if self.recording is not None:
            self.recording.work = (images, results)
        return results


class Graph:
    """As `torch.cuda.CUDAGraph`: a replay computes from the recorded input into the recorded output."""

    work: tuple[Tensor, tuple[Tensor, ...]]

    def replay(self) -> None:
        source, results = self.work
        for result in results:
            result.copy_(source * 2)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand-ins in torch.cuda, and what they were called with."""
    seen = SimpleNamespace(module=Doubling(), devices=[], streams=[], captures=[])

    @contextmanager
    def entered(value: Any, kept: list[Any]) -> Iterator[None]:
        kept.append(value)
        yield

    @contextmanager
    def capture(graph: Graph, *, stream: Any, capture_error_mode: str) -> Iterator[None]:
        seen.captures.append((stream, capture_error_mode))
        seen.module.recording = graph
        yield
        seen.module.recording = None

    def stream_of(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(device=device, wait_stream=lambda _: None)

    monkeypatch.setattr(torch.cuda, "device", lambda device: entered(device, seen.devices))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: entered(stream, seen.streams))
    monkeypatch.setattr(torch.cuda, "Stream", stream_of)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream_of(torch.device("cpu")))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return seen


def test_a_cuda_graph_is_recorded_once_for_each_shape_and_runs_every_batch(cuda: SimpleNamespace) -> None:
    graphs = CudaGraphCache(cuda.module)
    batches = [torch.full((2, 3, 4, 4), float(value)) for value in (1, 5)]
    outputs = [graphs(batch, uncertainty=False) for batch in batches]
    for batch, (output,) in zip(batches, outputs, strict=True):  # the second batch does not overwrite the first result
        torch.testing.assert_close(output, 2 * batch)
    assert len(cuda.captures) == 1
    assert len(graphs(batches[0], uncertainty=True)) == 2
    graphs(torch.ones(1, 3, 4, 4), uncertainty=True)
    assert len(cuda.captures) == 3


def test_a_cuda_graph_is_recorded_on_the_device_of_the_images_while_other_threads_use_it(cuda: SimpleNamespace) -> None:
    images = torch.ones(1, 3, 4, 4)
    CudaGraphCache(cuda.module)(images, uncertainty=False)
    assert cuda.devices == [images.device]
    ((stream, mode),) = cuda.captures
    assert stream.device == images.device
    assert cuda.streams == [stream]  # the warm-up, whose memory the recording takes over
    assert mode == "thread_local"


def test_weights_of_convolutions_are_converted_once_and_normalizations_stay_float32() -> None:
    form = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    _convert_weights(form, torch.bfloat16)
    assert [module.weight.dtype for module in form] == [torch.bfloat16, torch.float32, torch.bfloat16]  # type: ignore[union-attr]


@pytest.fixture
def preloads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of ONNX Runtime's preload_dlls."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0")
    return calls


def nvidia_packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheels of CUDA 13 and cuDNN in a folder of packages that is not ONNX Runtime's."""
    nvidia = folder / "nvidia"
    for package in ("cu13", "cudnn"):
        (nvidia / package / "lib").mkdir(parents=True)
    spec = SimpleNamespace(submodule_search_locations=[str(nvidia)])
    monkeypatch.setattr(cuda_libraries.importlib.util, "find_spec", lambda name: spec if name == "nvidia" else None)
    return nvidia


def test_cuda_is_loaded_from_another_folder_of_packages(
    preloads: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia = nvidia_packages(tmp_path, monkeypatch)
    cuda_libraries.preload_cuda()
    assert preloads == [
        {"cudnn": False, "directory": str(nvidia / "cu13" / "lib")},
        {"cuda": False, "directory": str(nvidia / "cudnn" / "lib")},
    ]


def test_onnx_runtime_finds_cuda_itself_beside_it_or_in_the_system(
    preloads: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_libraries.importlib.util, "find_spec", lambda _: None)
    cuda_libraries.preload_cuda()
    nvidia_packages(tmp_path, monkeypatch)
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "onnxruntime" / "__init__.py"))
    cuda_libraries.preload_cuda()
    assert preloads == [{}, {}]


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9 has one setting for all")
@pytest.mark.parametrize("precision", ["none", "ieee", "tf32"])
def test_float32_is_computed_without_tf32_whatever_the_application_has_set(precision: str) -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = precision
    try:
        with _without_tf32():
            assert convolutions.fp32_precision == "ieee"
        assert convolutions.fp32_precision == precision
    finally:
        convolutions.fp32_precision = before
