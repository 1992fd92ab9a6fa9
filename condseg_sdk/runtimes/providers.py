"""The devices for .onnx files: `PROVIDERS` has an entry for each, and a new execution provider is a new entry.

Some providers are part of ONNX Runtime. Others are plug-ins: Python packages with a library that is registered once per
process. OpenVINO runs the files itself (`openvino_session.py`). Nothing here opens a model.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.errors import DeviceError, OptionError
from condseg_sdk.forking import REMEDY
from condseg_sdk.runtimes import openvino_session
from condseg_sdk.runtimes.options import ONNX_DEVICES, Precision

__all__ = [
    "DEVICES",
    "PROVIDERS",
    "Plugin",
    "Provider",
    "ProviderSettings",
    "find_provider",
    "preferred_devices",
    "reason_of",
]


@dataclass(frozen=True)
class ProviderSettings:
    """What the options of a provider depend on.

    Attributes:
        number: Number of the GPU.
        precision: Precision of the arithmetic.
        threads: Number of CPU threads; None for the provider's own number.
        cache: Folder for the compiled model; None to keep nothing.
    """

    number: int = 0
    precision: Precision = "float32"
    threads: int | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Plugin:
    """A Python package with an execution provider.

    Attributes:
        package: Name to import. The package has a function `get_library_path`.
        install: What pip installs.
    """

    package: str
    install: str

    def is_installed(self) -> bool:
        """Return whether the package is there, as far as can be told without loading it."""
        return find_spec(self.package) is not None

    def register(self, device: str) -> None:
        """Register the library with ONNX Runtime, if this process has not yet done so.

        Args:
            device: The requested device, for the message.

        Raises:
            DeviceError: The package is missing, its library cannot be loaded, or this process was forked from one that
                had loaded it. The library's threads do not exist in a fork, which would wait for them forever.
        """
        import onnxruntime

        with _lock:
            owner = _owners.get(self.package)
            if owner == os.getpid():
                return
            if owner is not None:
                raise DeviceError(
                    f"device={device!r}: its plug-in was loaded before this process was forked from its parent: "
                    f"{REMEDY}",
                    option="device",
                )
            if not self.is_installed():
                raise DeviceError(
                    f"device={device!r} needs a plug-in of ONNX Runtime: pip install {self.install!r}", option="device"
                )
            try:
                library = import_module(self.package).get_library_path()
                onnxruntime.register_execution_provider_library(self.package, library)
            except Exception as error:
                raise DeviceError(
                    f"device={device!r}: the plug-in {self.package} cannot be loaded ({reason_of(error)}): install "
                    f"what is missing, pip install --force-reinstall {self.install!r}, or use device='cpu'",
                    option="device",
                ) from error
            _owners[self.package] = os.getpid()


_lock = threading.Lock()
_owners: dict[str, int] = {}  # by package: the process that registered its library


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


@dataclass(frozen=True)
class Provider:
    """An execution provider on one kind of processor.

    Attributes:
        device: Name of the device, as in `device=`.
        name: Name of the provider in ONNX Runtime, or "OpenVINO".
        processor: What it runs on, for messages.
        numbered: Whether the number of a GPU may follow the name, as in "cuda:1".
        nvidia: Whether it needs NVIDIA's driver.
        plugin: Plug-in of ONNX Runtime that it comes from; None for the others.
        openvino: OpenVINO's name of the processor; "" for the providers of ONNX Runtime.
        precisions: Precisions of the arithmetic that it supports, the default first.
        smallest_side: Smallest height and width of the network's input.
        batches: Whether a batch takes less time than its images one after the other.
        memory: Where outputs are kept until they are copied: "cuda" or "cpu".
        keeps_compiled: Whether `OnnxOptions.cache_compiled` has an effect.
        options: Returns the options of the provider.
    """

    device: str
    name: str
    processor: str
    numbered: bool = False
    nvidia: bool = False
    plugin: Plugin | None = None
    openvino: str = ""
    precisions: tuple[Precision, ...] = ("float32",)
    smallest_side: int = 32
    batches: bool = False
    memory: str = "cpu"
    keeps_compiled: bool = False
    options: Callable[[ProviderSettings], dict[str, Any]] = lambda _: {}

    @property
    def engine(self) -> str:
        """What pip installs to run files on it, for messages."""
        return "openvino" if self.openvino else "onnxruntime"

    def check(self, device: str) -> None:
        """Check whether the provider can be used here, as far as can be told without opening a model.

        Args:
            device: The requested device, for the message.

        Raises:
            DeviceError: It cannot be used; the message says why, and what to do.
        """
        import onnxruntime

        if self.openvino:
            openvino_session.find_processor(self.openvino, device, self.processor)
            return
        if self.plugin is not None:
            self.plugin.register(device)
            self.plugin_devices(device)
            return
        if self.name not in onnxruntime.get_available_providers():
            raise DeviceError(
                f"device={device!r}: this onnxruntime has no {self.name}; install onnxruntime-gpu or use 'cpu'",
                option="device",
            )
        if self.nvidia and not has_nvidia_driver():
            raise DeviceError(
                f"device={device!r}: no NVIDIA driver on this machine; use 'cpu' or 'auto'", option="device"
            )

    def plugin_devices(self, device: str) -> list[Any]:
        """Return the devices (`onnxruntime.OrtEpDevice`) that the registered plug-in offers for this provider.

        Raises:
            DeviceError: There is none.
        """
        import onnxruntime

        found = [offered for offered in onnxruntime.get_ep_devices() if offered.ep_name == self.name]
        if not found:
            raise DeviceError(
                f"device={device!r}: its plug-in finds no {self.processor} on this machine; use 'cpu' or 'auto'",
                option="device",
            )
        return found

    def choose_precision(self, wanted: Precision | None, supported: Collection[str] = ()) -> Precision:
        """Return the precision of the arithmetic.

        Args:
            wanted: The requested precision; None for the provider's default.
            supported: Precisions for which this processor has instructions, in OpenVINO's words; empty if unknown.

        Raises:
            OptionError: The provider, or the processor, does not support the precision.
        """
        precision = wanted or self.precisions[0]
        if precision not in self.precisions:
            have, others = (
                ", ".join(map(repr, names))
                for names in (self.precisions, [x.device for x in PROVIDERS.values() if precision in x.precisions])
            )
            raise OptionError(
                f"precision={precision!r}: device={self.device!r} computes in {have}; use that, or device={others}",
                option="precision",
            )
        if supported and CAPABILITY[precision] not in supported:
            raise OptionError(
                f"precision={precision!r}: this processor has no instructions for it; use precision='float32'",
                option="precision",
            )
        return precision


CAPABILITY: dict[Precision, str] = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}  # in OpenVINO's words


@cache
def has_nvidia_driver() -> bool:
    """Return whether there is a driver for CUDA; without one its provider fails and prints to stderr."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name).cuInit(0) == 0
        except OSError:
            continue
    return False


def reason_of(error: Exception) -> str:
    """Return the first line of a message of ONNX Runtime, without prefixes: where in its source, in which function."""
    lines = str(error).splitlines() or [type(error).__name__]
    line = lines[0].rpartition("[ONNXRuntimeError] : ")[2]
    line = re.sub(r"^\d+ : [A-Z_]+ : (\S+\.(h|cc):\d+ \S+ )?", "", line)
    return re.sub(r"^/onnxruntime_src/.*?[)\]] (?=[A-Z])", "", line)[:300]


def _cuda(settings: ProviderSettings) -> dict[str, Any]:
    # As in PyTorch (`torch_runtime.py`): with TF32, the default, float32 would differ in the third decimal.
    return {"device_id": settings.number, "use_tf32": 0}


def _tensorrt(settings: ProviderSettings) -> dict[str, Any]:
    """Return the options of TensorRT, whose engine takes minutes to build and is therefore always kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "condseg_sdk" / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": settings.number,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
    }


def _openvino(settings: ProviderSettings) -> dict[str, Any]:
    names: dict[Precision, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
    # For one image at a time, the way predictions come.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": names[settings.precision], "PERFORMANCE_HINT": "LATENCY"}
    if settings.cache is not None:
        config["CACHE_DIR"] = str(settings.cache)
    return config


def _openvino_cpu(settings: ProviderSettings) -> dict[str, Any]:
    # Threads that are bound to cores would wait there for other processes.
    config = {**_openvino(settings), "ENABLE_CPU_PINNING": False}
    if settings.threads is not None:
        config["INFERENCE_NUM_THREADS"] = settings.threads
    return config


def _openvino_provider(processor: str, description: str, precisions: tuple[Precision, ...]) -> Provider:
    return Provider(
        f"openvino:{processor.lower()}",
        openvino_session.NAME,
        description,
        openvino=processor,
        precisions=precisions,
        # OpenVINO 2026.4 writes beyond its memory where the coarsest map of a network is one pixel wide.
        smallest_side=64,
        batches=processor == "GPU",
        keeps_compiled=True,
        options=_openvino_cpu if processor == "CPU" else _openvino,
    )


CPU = Provider("cpu", "CPUExecutionProvider", "CPU")
CUDA = Provider(
    "cuda",
    "CUDAExecutionProvider",
    "NVIDIA GPU",
    numbered=True,
    nvidia=True,
    batches=True,
    memory="cuda",
    options=_cuda,
)
PROVIDERS: dict[str, Provider] = {
    provider.device: provider
    for provider in (
        CPU,
        CUDA,
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            "NVIDIA GPU",
            numbered=True,
            nvidia=True,
            batches=True,
            memory="cuda",
            options=_tensorrt,
        ),
        Provider(
            "tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "NVIDIA GPU of the RTX 30 series or later",
            numbered=True,
            batches=True,
            plugin=Plugin("onnxruntime_ep_nv_tensorrt_rtx", "onnxruntime-ep-nv-tensorrt-rtx"),
        ),
        Provider(
            "webgpu",
            "WebGpuExecutionProvider",
            "GPU with a driver for Vulkan, Metal or Direct3D 12",
            batches=True,
            plugin=Plugin("onnxruntime_ep_webgpu", "onnxruntime-ep-webgpu"),
        ),
        _openvino_provider("CPU", "CPU", ("float32", "bfloat16")),
        _openvino_provider("GPU", "GPU of Intel", ("float32", "float16")),
        _openvino_provider("NPU", "NPU of Intel", ("float16",)),
    )
}
"""The devices by their names, without numbers."""

DEVICES = ("auto", "cpu", "cuda", *ONNX_DEVICES)
"""What users may name; an NVIDIA GPU also by its number, as in "cuda:1"."""


def find_provider(device: str) -> tuple[Provider, int]:
    """Return the provider of a device and the number of its GPU.

    Args:
        device: One of `DEVICES` but "auto", or a numbered one such as "cuda:1". "openvino" means "openvino:cpu".

    Raises:
        OptionError: `device` has another value.

    Example:
        >>> provider, number = find_provider("cuda:1")
        >>> provider.name, number
        ('CUDAExecutionProvider', 1)
    """
    kind, _, number = device.partition(":")
    provider = PROVIDERS.get(device) or PROVIDERS.get(f"{device}:cpu")
    if provider is not None:
        return provider, 0
    provider = PROVIDERS.get(kind)
    if provider is None or not provider.numbered or not (number.isascii() and number.isdigit()):
        raise OptionError(
            f"device={device!r} must be one of {', '.join(map(repr, DEVICES))}; for a GPU by its number 'cuda:1'",
            option="device",
        )
    return provider, int(number)


def preferred_devices(precision: OnnxPrecision = "float32") -> list[str]:
    """Return the devices to try for device="auto", in order; the CPU is the last.

    Args:
        precision: Precision of the file. OpenVINO rounds differently in int8 and float16 files, which changes
            probabilities by more than 0.001: "auto" leaves them to ONNX Runtime's own provider.

    These devices were measured to be the fastest (docs/performance.md): an NVIDIA GPU; OpenVINO on an Intel processor,
    if it is installed; otherwise ONNX Runtime's own provider. Each of them computes in float32. On AMD's processors
    OpenVINO's float32 is as fast as ONNX Runtime's, and takes longer to open a file.
    """
    import onnxruntime

    devices = ["cpu"]
    cpu = onnxruntime.OrtHardwareDeviceType.CPU
    on_intel = any(x.device.type == cpu and x.device.vendor == "Intel" for x in onnxruntime.get_ep_devices())
    if precision == "float32" and on_intel and openvino_session.is_usable():
        devices.insert(0, "openvino")
    if CUDA.name in onnxruntime.get_available_providers() and has_nvidia_driver():
        devices.insert(0, "cuda")
    return devices
