"""ONNX Runtime as a runtime, for files that `export_onnx` wrote.

device="auto" uses CUDA if possible, otherwise the CPU. "cpu" and "cuda" are used or refused. "tensorrt" is used only
when named, since it first builds an engine for minutes. There is no silent fallback from a named device: neither for
the whole session nor for single operations. Only arithmetic on shapes, which ONNX Runtime itself assigns to the CPU,
may run there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import CheckpointError, DeviceError, OptionError
from condseg_sdk.files import is_utf8
from condseg_sdk.forking import check_gpu_process
from condseg_sdk.runtimes.base import Logits, log_cpu
from condseg_sdk.runtimes.graph_check import INPUT, check_graph
from condseg_sdk.runtimes.options import OnnxOptions

__all__ = ["OnnxRuntime"]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SHAPE_ARITHMETIC = frozenset(
    [
        "Add",
        "Cast",
        "Concat",
        "Constant",
        "Div",
        "Equal",
        "Floor",
        "Gather",
        "Mod",
        "Mul",
        "Neg",
        "Shape",
        "Slice",
        "Squeeze",
        "Sub",
        "Unsqueeze",
        "Where",
    ]
)
TRIAL_SIDE = 32
OUT_OF_MEMORY = ("Failed to allocate memory", "BFCArena", "out of memory", "CUDA failure 2")
FATAL_ONLY = 4  # a log level of ONNX Runtime, whose errors are raised and would also be printed to stderr

logger = logging.getLogger("condseg_sdk")


@cache
def _has_nvidia_driver() -> bool:
    """Return whether there is a driver for CUDA; without one its provider fails and prints to stderr."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name).cuInit(0) == 0
        except OSError:
            continue
    return False


def _reason(error: Exception) -> str:
    """Return the first line of a message of ONNX Runtime, without the prefix "[ONNXRuntimeError] : "."""
    lines = str(error).splitlines()
    return lines[0].removeprefix("[ONNXRuntimeError] : ")[:300] if lines else type(error).__name__


def _engine_cache() -> Path:
    """Return the folder for TensorRT's engines."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "condseg_sdk" / "tensorrt"


def choose_providers(device: str) -> list[tuple[str, dict[str, Any]]]:
    """Choose the execution providers for a device.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "tensorrt" or "tensorrt:1".

    Returns:
        Names and options of the providers, the requested one first.

    Raises:
        OptionError: `device` has another value.
        DeviceError: A GPU is named and there is none, or this onnxruntime does not have its provider.
    """
    import onnxruntime

    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "tensorrt") or (
        number and (kind in ("auto", "cpu") or not number.isdigit())
    ):
        raise OptionError(
            f"device={device!r} must be 'auto', 'cpu', 'cuda', 'cuda:1', 'tensorrt' or 'tensorrt:1'", option="device"
        )
    built = onnxruntime.get_available_providers()
    if kind == "auto":
        kind = "cuda" if CUDA in built and _has_nvidia_driver() else "cpu"
        if kind == "cpu":
            log_cpu()
    if kind == "cpu":
        return [(CPU, {})]
    wanted = CUDA if kind == "cuda" else TENSORRT
    if wanted not in built:
        raise DeviceError(
            f"device={device!r}: this onnxruntime has no {wanted}; install onnxruntime-gpu or use 'cpu'",
            option="device",
        )
    if not _has_nvidia_driver():
        raise DeviceError(f"device={device!r}: no NVIDIA driver on this machine; use 'cpu' or 'auto'", option="device")
    _preload_cuda()
    index = {"device_id": int(number or 0)}
    providers: list[tuple[str, dict[str, Any]]] = [(CUDA, index), (CPU, {})]
    if kind == "tensorrt":
        cache_folder = _engine_cache()
        cache_folder.mkdir(parents=True, exist_ok=True)
        folder = str(cache_folder)
        options = {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": folder,
        }
        providers.insert(0, (TENSORRT, {**index, **options}))
    return providers


def _preload_cuda() -> None:
    """Load CUDA and cuDNN of the wheels that pip installed, if any.

    ONNX Runtime looks for them only beside itself. In a virtual environment that sees the packages of the system, they
    are often in the other folder, where PyTorch brought them.
    """
    import onnxruntime

    toolkit = f"cu{(onnxruntime.cuda_version or '').partition('.')[0]}"
    nvidia = importlib.util.find_spec("nvidia")  # a namespace package: all folders of this name
    folders = [Path(folder) for folder in (nvidia.submodule_search_locations or ())] if nvidia else []
    beside = Path(onnxruntime.__file__).parents[1] / "nvidia"
    elsewhere = [folder for folder in folders if (folder / toolkit / "lib").is_dir()]
    if (beside / toolkit).is_dir() or not elsewhere:
        onnxruntime.preload_dlls()
        return
    onnxruntime.preload_dlls(cudnn=False, directory=str(elsewhere[0] / toolkit / "lib"))
    for folder in folders:
        if (folder / "cudnn" / "lib").is_dir():
            onnxruntime.preload_dlls(cuda=False, directory=str(folder / "cudnn" / "lib"))
            return


class OnnxRuntime:
    """An exported file in ONNX Runtime. It is safe to call from several threads.

    Args:
        path: File that `export_onnx` wrote.
        device: Name of the device; see `choose_providers`.
        options: Threads and session configuration; default: those of `OnnxOptions()`.

    Raises:
        CheckpointError: The file is damaged, cannot be read by this ONNX Runtime, or is not an export of condseg_sdk.
        DeviceError: The device cannot be used, or the session does not use it.
        OptionError: `device` is unknown.

    Example:
        >>> OnnxRuntime("model.onnx", device="cpu").providers  # doctest: +SKIP
        ('CPUExecutionProvider',)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        options: OnnxOptions | None = None,
    ) -> None:
        options = options or OnnxOptions()
        self._path = Path(path)
        self._owner = os.getpid()
        self.config, self.info = check_graph(self._path)
        import onnxruntime

        providers = choose_providers(device)
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = FATAL_ONLY
        session_options.intra_op_num_threads = options.threads or 0
        for key, value in options.session_options.items():
            session_options.add_session_config_entry(key, value)
        if self.info.dynamic and providers[0][0] == CPU:
            # Planning which map may take whose memory compares all with all where sizes are unknown, which is most of
            # the time to open a file; the allocator gives memory back in time without a plan.
            session_options.enable_mem_reuse = False
        named = providers[0][0] != CPU and device != "auto"
        if named:
            session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            model = os.fspath(self._path) if is_utf8(self._path) else self._path.read_bytes()
            self._session = onnxruntime.InferenceSession(model, session_options, providers=providers)
        except Exception as error:
            remedy = "the file is damaged or incompatible with this onnxruntime; export it again"
            raise CheckpointError(f"{self._path} cannot be opened ({_reason(error)}): {remedy}") from error
        self._session.disable_fallback()  # to other providers if one fails in a prediction
        wanted, settings = providers[0]
        if self.providers[0] != wanted and device == "auto":
            logger.warning("onnxruntime cannot use CUDA, although there is a driver: running on the CPU")
            wanted = CPU
        if self.providers[0] != wanted:
            raise DeviceError(
                f"device={device!r}: the session runs on {', '.join(self.providers)} instead of {wanted}; check that "
                "CUDA and cuDNN match onnxruntime-gpu, or use device='cpu'",
                option="device",
            )
        if named:
            self._refuse_work_on_the_cpu(device)
        self._device = "cpu" if wanted == CPU else f"cuda:{settings['device_id']}"
        if wanted == CPU:  # on a GPU the first prediction is slow, and TensorRT would build an engine
            self._try()

    def _refuse_work_on_the_cpu(self, device: str) -> None:
        """Raise an error if an operation other than arithmetic on shapes was assigned to the CPU."""
        left = {
            node.op_type
            for part in self._session.get_provider_graph_assignment_info()
            if part.ep_name == CPU
            for node in part.get_nodes()
        } - SHAPE_ARITHMETIC
        if left:
            raise DeviceError(
                f"device={device!r}: {', '.join(sorted(left))} of {self._path} would run on the CPU; use device='auto' "
                "to allow it, or export again",
                option="device",
            )

    def _try(self) -> None:
        """Run the graph once, on the smallest image that it takes, to find operations that do not work."""
        size = (TRIAL_SIDE, TRIAL_SIDE) if self.info.dynamic else self.config.preprocessing.size
        maps = self.run(np.zeros((1, 3, *size), np.float32), branch_uncertainty=self.info.branch_uncertainty)
        if not all(np.isfinite(values).all() for values in maps if values is not None):
            raise CheckpointError(f"{self._path} is damaged, it predicts NaN or infinity: export it again")

    network = None  # an exported graph has none

    @property
    def device(self) -> str:
        """Device that it runs on, such as "cpu" or "cuda:0"."""
        return self._device

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers of the session, in order of preference."""
        return tuple(self._session.get_providers())

    def check_branch_uncertainty(self) -> None:
        """Refuse a request for the map of the uncertainty branch if the file does not have it.

        Raises:
            OptionError: The file does not have it.
        """
        if not self.info.branch_uncertainty:
            raise OptionError(
                f"{self._path} was exported without the uncertainty branch: export with branch_uncertainty=True",
                option="branch_uncertainty",
            )

    def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
        """Return the logits of a batch of normalized images, float32 (B, 3, h, w).

        A file for one image gets them one by one.
        """
        check_gpu_process(self._owner, self._device)
        if branch_uncertainty:
            self.check_branch_uncertainty()
        names = list(self.info.outputs[: 1 + branch_uncertainty])
        groups = [batch] if self.info.dynamic else np.split(batch, len(batch))
        results = [self._checked_run(names, group) for group in groups]
        maps = [np.concatenate(parts)[:, 0] for parts in zip(*results, strict=True)]
        return Logits(maps[0], maps[1] if branch_uncertainty else None)

    def _checked_run(self, names: list[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Call `_run`, and translate the errors of ONNX Runtime."""
        remedy = "the file is damaged or incompatible with this onnxruntime; export it again"
        try:
            outputs = self._run(names, batch)
        except Exception as error:
            if isinstance(error, MemoryError) or any(word in str(error) for word in OUT_OF_MEMORY):
                raise OptionError(
                    f"there is not enough memory for a batch of {len(batch)} images in {self._path}: lower batch_size",
                    option="batch_size",
                ) from error
            raise CheckpointError(f"{self._path} cannot be run ({_reason(error)}): {remedy}") from error
        expected = (len(batch), 1, *batch.shape[2:])
        for name, output in zip(names, outputs, strict=True):
            if output.shape != expected:
                raise CheckpointError(
                    f"{self._path} cannot be run ({name} has the shape {output.shape}, not {expected}): {remedy}"
                )
        return outputs

    def _run(self, names: list[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Compute outputs by their names."""
        if self._device == "cpu":
            outputs: list[NDArray[np.float32]] = self._session.run(names, {INPUT: batch})
            return outputs
        # Bound outputs stay on the GPU until they are copied here, so that no operation waits for a copy.
        binding = self._session.io_binding()
        binding.bind_cpu_input(INPUT, batch)
        for name in names:
            binding.bind_output(name, "cuda", int(self._device.partition(":")[2]))
        self._session.run_with_iobinding(binding)
        copied: list[NDArray[np.float32]] = binding.copy_outputs_to_cpu()
        return copied
