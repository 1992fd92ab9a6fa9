"""OpenVINO: what it finds on this machine, and an .onnx file that it has compiled.

The package `openvino` is used and not its plug-in for ONNX Runtime: the plug-in takes as long for an image and supports
processors of Intel alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import DeviceError
from condseg_sdk.forking import REMEDY
from condseg_sdk.privacy import block_openvino_telemetry

__all__ = ["NAME", "OpenVinoSession", "describe_processor", "is_installed", "is_usable", "supported_precisions"]

NAME = "OpenVINO"
INSTALL = "condseg_sdk[openvino]"

_lock = threading.Lock()
_core: Any = None
_owner: int | None = None  # the process that loaded OpenVINO


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


def is_installed() -> bool:
    """Return whether the package is there, as far as can be told without loading it."""
    return find_spec("openvino") is not None


def is_usable() -> bool:
    """Return whether the package is there and this process may use it; a child of one that did may not."""
    return is_installed() and _owner in (None, os.getpid())


def load_core(device: str) -> Any:
    """Return the `openvino.Core` of this process.

    Args:
        device: The requested device, for the message.

    Raises:
        DeviceError: The package is missing, cannot be loaded, or was loaded before this process was forked. Its threads
            do not exist in a fork, which would wait for them forever.
    """
    global _core, _owner
    with _lock:
        if _owner not in (None, os.getpid()):
            raise DeviceError(
                f"device={device!r}: OpenVINO was loaded before this process was forked from its parent: {REMEDY}",
                option="device",
            )
        if _core is None:
            if not is_installed():
                raise DeviceError(f"device={device!r} needs OpenVINO: pip install {INSTALL!r}", option="device")
            block_openvino_telemetry()
            try:
                import openvino

                _core = openvino.Core()
            except Exception as error:
                raise DeviceError(
                    f"device={device!r}: OpenVINO cannot be loaded ({str(error).partition(chr(10))[0]}): "
                    f"pip install --force-reinstall {INSTALL!r}, or use device='cpu'",
                    option="device",
                ) from error
            _owner = os.getpid()
    return _core


def find_processor(processor: str, device: str, description: str) -> Any:
    """Return the core, if OpenVINO finds a processor of this kind.

    Args:
        processor: OpenVINO's name of the kind: "CPU", "GPU" or "NPU".
        device: The requested device, for the message.
        description: What it runs on, for the message.

    Raises:
        DeviceError: There is none, or `load_core` raises it.
    """
    core = load_core(device)
    # Several GPUs are "GPU.0" and "GPU.1"; "GPU" means the first.
    if processor not in {name.partition(".")[0] for name in core.available_devices}:
        raise DeviceError(
            f"device={device!r}: OpenVINO finds no {description} on this machine; use 'cpu' or 'auto'", option="device"
        )
    return core


def supported_precisions(core: Any, processor: str) -> frozenset[str]:
    """Return the precisions for which the processor has instructions, in OpenVINO's words, such as "BF16"."""
    return frozenset(core.get_property(processor, "OPTIMIZATION_CAPABILITIES"))


def describe_processor(core: Any, processor: str) -> tuple[str, str]:
    """Return the version of OpenVINO and the name of the processor, on which a compiled model depends."""
    import openvino

    return openvino.__version__, str(core.get_property(processor, "FULL_DEVICE_NAME"))


class OpenVinoSession:
    """A compiled .onnx file, with the methods of ONNX Runtime's session that `OnnxRuntime` needs.

    Several threads may call it: each prediction takes a request of its own.

    Args:
        core: What `find_processor` returned.
        model: Path of the file, or its content.
        processor: "CPU", "GPU" or "NPU". All of the graph runs there, or the file is refused.
        config: OpenVINO's properties.
    """

    def __init__(self, core: Any, model: str | bytes, processor: str, config: Mapping[str, Any]) -> None:
        graph = model if isinstance(model, str) else core.read_model(model)
        self._compiled = core.compile_model(graph, processor, dict(config))
        self._idle: list[Any] = []

    def get_providers(self) -> list[str]:
        """Return what executes the file."""
        return [NAME]

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return outputs by their names, as new arrays."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            results = request.infer(dict(feeds), share_inputs=True)
            return [results[name] for name in names]
        finally:
            self._idle.append(request)
