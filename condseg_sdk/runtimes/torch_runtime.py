"""PyTorch as a runtime."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from condseg_sdk.errors import DeviceError, OptionError
from condseg_sdk.export.inference_form import inference_form
from condseg_sdk.forking import REMEDY, check_process, fork_safe
from condseg_sdk.models import ConDSeg
from condseg_sdk.runtimes.base import Logits, log_cpu
from condseg_sdk.runtimes.options import Precision, TorchOptions
from condseg_sdk.user import ensure_user_name

logger = logging.getLogger("condseg_sdk")

_TF32 = threading.Lock()


def resolve_device(device: str) -> torch.device:
    """Return the torch device for a name.

    Args:
        device: "auto" (a GPU if one can be used, otherwise the CPU), "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        DeviceError: The device cannot be used here; only "auto" falls back to the CPU.
    """
    if device == "auto":
        if torch.cuda._is_in_bad_fork():
            raise DeviceError(f"the GPU is in use by the parent process that this process was forked from: {REMEDY}")
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if torch.backends.mps.is_available():
            return torch.device("mps")
        log_cpu()
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        if torch.cuda._is_in_bad_fork():
            raise DeviceError(
                f"device={device!r} cannot be used in this forked process: {REMEDY}", option="device"
            ) from error
        raise DeviceError(
            f"device={device!r} cannot be used: PyTorch {torch.__version__} has {', '.join(_usable())} here; choose "
            "one of them, or 'auto'",
            option="device",
        ) from error
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def _usable() -> list[str]:
    """Return the names of the devices of this machine."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that the device does not support, or that is slow on it."""
    if device.type != "cpu" or precision == "float32":
        return
    if precision == "float16":
        raise OptionError("precision='float16' needs a GPU: use 'bfloat16' or 'float32' on the CPU", option="precision")
    if not torch.cpu._is_avx512_bf16_supported():
        raise OptionError(
            "precision='bfloat16' would be slower than float32 on this CPU, which has no AVX512_BF16: use 'float32'",
            option="precision",
        )


NEEDS_COMPILER = "install a C++ compiler (Debian: apt install g++), or use execution='eager'"


def _check_compiler(device: torch.device) -> None:
    """Check for a compiler: torch.compile notices a missing one only after minutes.

    Raises:
        DeviceError: There is no compiler.
    """
    if device.type != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except (RuntimeError, OSError) as error:
        raise DeviceError(f"execution='compiled' needs a compiler: {NEEDS_COMPILER}", option="execution") from error


class TorchRuntime:
    """A `ConDSeg` in PyTorch, in its inference form. Safe to call from several threads.

    Args:
        network: The network. It is not modified; a copy is rewritten (`inference_form`) with channels last,
            which is faster on CPUs and GPUs.
        device: Name of the device; see `resolve_device`.
        options: Precision and execution; default: `TorchOptions()`.

    Raises:
        DeviceError: The device cannot be used, or a CUDA graph is requested on another device.
        OptionError: The device does not support this precision.
    """

    providers = ("torch",)

    def __init__(self, network: ConDSeg, *, device: str = "auto", options: TorchOptions | None = None) -> None:
        options = options or TorchOptions()
        self.network = network
        self._device = resolve_device(device)
        _check_precision(options.precision, self._device)
        self._owner = os.getpid()
        self._dtype: torch.dtype = getattr(torch, options.precision)
        if options.execution == "cuda-graph" and self._device.type != "cuda":
            raise DeviceError(
                f"execution='cuda-graph' needs a CUDA device, not {self._device}: use 'eager'", option="execution"
            )
        # One form for both requests: the uncertainty branch runs only when it is requested.
        form = inference_form(network, uncertainty=True).to(self._device)
        form = form.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._dtype != torch.float32:
            _convert_weights(form, self._dtype)
        self._form: Callable[..., tuple[Tensor, ...]] = form
        if options.execution == "compiled":
            ensure_user_name()
            _check_compiler(self._device)
            self._form = _Compiled(form)
        elif options.execution == "cuda-graph":
            self._form = CudaGraphCache(form)

    @property
    def device(self) -> str:
        """Device that it runs on, such as "cpu" or "cuda:0"."""
        return str(self._device)

    def check_branch_uncertainty(self) -> None:
        """Do nothing: every checkpoint has the uncertainty branch."""

    def _numerics(self) -> AbstractContextManager[object]:
        """Return the context that sets the precision of the arithmetic."""
        if self._dtype != torch.float32:
            # Without the cache of converted weights: a CUDA graph would record its addresses, which are reused later.
            return torch.autocast(self._device.type, self._dtype, cache_enabled=False)
        if self._device.type == "cuda":
            # With TF32, cuDNN's default, the third decimal of a float32 prediction would depend on the batch.
            return _without_tf32()
        return nullcontext()

    @fork_safe
    def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
        """Return the logits of a batch of normalized images, float32 (B, 3, h, w)."""
        check_process(self._owner, self.device)
        with torch.inference_mode(), self._numerics():
            images = torch.from_numpy(batch).to(self._device, memory_format=torch.channels_last)
            maps = [x[:, 0].float().cpu().numpy() for x in self._form(images, uncertainty=branch_uncertainty)]
        return Logits(maps[0], maps[1] if branch_uncertainty else None)


def _convert_weights(form: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of convolutions and linear layers once, as autocast would do in every prediction."""
    for module in form.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Switch TF32 off in convolutions. One thread at a time, since the setting belongs to the process."""
    now = torch.backends.cudnn
    if not hasattr(now, "conv"):  # before PyTorch 2.9
        flags = now.flags(enabled=True, benchmark=now.benchmark, deterministic=now.deterministic, allow_tf32=False)
        with _TF32, flags:
            yield
        return
    # `flags` would raise a RuntimeError if the application has set `conv.fp32_precision`, as PyTorch recommends.
    with _TF32:
        before = now.conv.fp32_precision
        now.conv.fp32_precision = "ieee"
        try:
            yield
        finally:
            now.conv.fp32_precision = before


class _Compiled:
    """A module that is compiled by torch.compile; an error of the compiler becomes one line.

    Args:
        module: The module to compile.
    """

    def __init__(self, module: Callable[..., tuple[Tensor, ...]]) -> None:
        self._compiled = torch.compile(module)

    def __call__(self, images: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
        try:
            return self._compiled(images, uncertainty=uncertainty)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OSError) as error:  # dynamo and inductor raise RuntimeErrors
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise DeviceError(
                f"execution='compiled': torch.compile failed ({reason}); use execution='eager', or check that the "
                "folder for its files can be written to (TORCHINDUCTOR_CACHE_DIR)",
                option="execution",
            ) from error


class CudaGraphCache:
    """Runs a module as CUDA graphs, one of which is recorded for each shape of a batch.

    The caller sets inference mode and precision: they are in force while a graph is recorded.

    Args:
        module: Module on a CUDA device, without gradients.
    """

    WARM_UPS = 3  # cuDNN first chooses its algorithms and allocates memory, which must not be recorded

    def __init__(self, module: Callable[..., tuple[Tensor, ...]]) -> None:
        self._module = module
        self._recorded: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]] = {}
        self._lock = threading.Lock()  # threads must not share the one input and output of a graph

    def __call__(self, images: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
        """Return the logits of a batch, the mask's first."""
        with self._lock, torch.cuda.device(images.device):  # streams belong to the current device
            key = (tuple(images.shape), uncertainty)
            if key not in self._recorded:
                self._recorded[key] = self._record(images, uncertainty)
            graph, source, results = self._recorded[key]
            source.copy_(images)
            graph.replay()
            return tuple(x.clone() for x in results)

    def _record(self, images: Tensor, uncertainty: bool) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        """Record the graph for batches of this shape."""
        source = images.clone(memory_format=torch.channels_last)
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UPS):
                self._module(source, uncertainty=uncertainty)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # By default another thread that copies an image to the GPU meanwhile would break the recording.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            results = self._module(source, uncertainty=uncertainty)
        return graph, source, results
