"""Opens an .onnx file on a device, in ONNX Runtime or OpenVINO, and checks that it runs there.

A named device is used or refused. There is no silent fallback from it: neither for the whole session nor for single
operations. Only arithmetic on shapes, which ONNX Runtime itself assigns to the CPU, may run there. device="auto" tries
the devices that are fast in order, and the CPU last.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from condseg_sdk.checkpoints.onnx_metadata import ExportInfo
from condseg_sdk.cores import limited_cores
from condseg_sdk.errors import CheckpointError, CondsegError, DeviceError, OptionError
from condseg_sdk.files import is_utf8
from condseg_sdk.runtimes.compiled_cache import compiled_once
from condseg_sdk.runtimes.cuda_libraries import preload_cuda
from condseg_sdk.runtimes.openvino_session import (
    OpenVinoSession,
    describe_processor,
    find_processor,
    supported_precisions,
)
from condseg_sdk.runtimes.options import OnnxOptions
from condseg_sdk.runtimes.providers import (
    CPU,
    CUDA,
    Provider,
    ProviderSettings,
    find_provider,
    preferred_devices,
    reason_of,
)

__all__ = ["OpenedSession", "open_session"]

# fmt: off
SHAPE_ARITHMETIC = frozenset([
    "Add", "Cast", "Concat", "Constant", "Div", "Equal", "Floor", "Gather", "Mod",
    "Mul", "Neg", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where",
])
# fmt: on
FATAL_ONLY = 4  # a log level of ONNX Runtime, whose errors are raised and would also be printed to stderr
RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"

logger = logging.getLogger("condseg_sdk")


class OpenedSession(NamedTuple):
    """A session and where it runs.

    Attributes:
        session: The `onnxruntime.InferenceSession`, or an `OpenVinoSession`.
        provider: The provider that it runs on.
        number: Number of the GPU.
    """

    session: Any
    provider: Provider
    number: int


def open_session(path: Path, device: str, options: OnnxOptions, info: ExportInfo) -> OpenedSession:
    """Open an .onnx file.

    Args:
        path: The file, which `check_graph` has accepted.
        device: "auto" or one of `providers.DEVICES`.
        options: Threads, precision and session configuration.
        info: How the file was exported.

    Raises:
        CheckpointError: This ONNX Runtime cannot read the file.
        DeviceError: The device cannot be used, or the session does not use it.
        OptionError: `device` is unknown, or does not support one of the options.
        OutputError: The compiled model cannot be kept.
    """
    if device != "auto":
        return _Opening(path, device, options, info, named=True).open()
    *others, last = preferred_devices(info.precision)
    for other in others:
        if options.session_options and find_provider(other)[0].openvino:
            continue  # they are ONNX Runtime's
        try:
            return _Opening(path, other, options, info, named=False).open()
        except CondsegError as error:
            logger.warning("not on %s (%s)", other, error)
    return _Opening(path, last, options, info, named=False).open()


class _Opening:
    """What is needed to open a file on one device."""

    def __init__(self, path: Path, device: str, options: OnnxOptions, info: ExportInfo, *, named: bool) -> None:
        self.path, self.device, self.options, self.info, self.named = path, device, options, info, named
        self.provider, self.number = find_provider(device)
        self.provider.check(device)
        self.plugin_device = self._plugin_device()
        processor = self.provider.openvino
        if processor and options.session_options:
            raise OptionError(
                f"session_options={dict(options.session_options)!r}: they belong to ONNX Runtime; leave them out, or "
                "use device='cpu'",
                option="session_options",
            )
        self.core = find_processor(processor, device, self.provider.processor) if processor else None
        supported = supported_precisions(self.core, processor) if processor else ()
        self.settings = ProviderSettings(
            number=self.number,
            precision=self.provider.choose_precision(options.precision, supported),
            threads=options.threads or limited_cores(),
        )

    def _plugin_device(self) -> Any:
        """Return the device that a plug-in offers; None for the providers of ONNX Runtime."""
        if self.provider.plugin is None:
            return None
        offered = self.provider.plugin_devices(self.device)
        if self.number >= len(offered):
            raise DeviceError(
                f"device={self.device!r}: the last {self.provider.processor} has the number {len(offered) - 1}",
                option="device",
            )
        return offered[self.number]

    def open(self) -> OpenedSession:
        """Create the session, with a compiled model that is kept if that was requested."""
        if not self.options.cache_compiled:
            session = self._session(self.settings)
        elif self.provider.keeps_compiled:
            where = describe_processor(self.core, self.provider.openvino)
            identity = (where, self.provider.device, self.settings, self.options)
            session = compiled_once(
                self.path, identity, lambda folder: self._session(replace(self.settings, cache=folder))
            )
        else:
            raise OptionError(
                f"cache_compiled=True: device={self.device!r} has no compiled model that could be kept; leave it out",
                option="cache_compiled",
            )
        return OpenedSession(session, self.provider, self.number)

    def _session(self, settings: ProviderSettings) -> Any:
        model = os.fspath(self.path) if is_utf8(self.path) else self.path.read_bytes()
        try:
            if self.provider.openvino:
                return OpenVinoSession(self.core, model, self.provider.openvino, self.provider.options(settings))
            session = self._onnxruntime_session(model, settings)
        except CondsegError:
            raise
        except Exception as error:
            if self._opens_on_cpu(model):
                raise DeviceError(
                    f"device={self.device!r} cannot be used ({reason_of(error)}): check its driver, libraries, free "
                    "memory and session_options, or use device='cpu'",
                    option="device",
                ) from error
            remedy = f"the file is damaged or incompatible with this {self.provider.engine}; export it again"
            if self.provider is not CPU:
                remedy += ", or use device='cpu'"
            raise CheckpointError(f"{self.path} cannot be opened ({reason_of(error)}): {remedy}") from error
        session.disable_fallback()  # to other providers if one fails in a prediction
        self._check_providers(session)
        return session

    def _opens_on_cpu(self, model: str | bytes) -> bool:
        """Whether it was not the file that kept this device of ONNX Runtime from opening it."""
        if self.provider is CPU or self.provider.openvino:
            return False
        import onnxruntime

        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = FATAL_ONLY
        try:
            onnxruntime.InferenceSession(model, quiet, providers=[CPU.name])
        except Exception:  # noqa: BLE001 - ONNX Runtime has no common class of errors
            return False
        return True

    def _onnxruntime_session(self, model: str | bytes, settings: ProviderSettings) -> Any:
        import onnxruntime

        session_options = self._session_options(settings)
        providers: list[tuple[str, dict[str, Any]]] | None = None
        provider_options = self.provider.options(settings)
        if self.plugin_device is not None:
            session_options.add_provider_for_devices([self.plugin_device], provider_options)
        else:
            providers = [(self.provider.name, provider_options)]
            if self.provider.nvidia:
                preload_cuda()
                if self.provider is not CUDA:  # what TensorRT does not have
                    providers.append((CUDA.name, CUDA.options(settings)))
                providers.append((CPU.name, {}))
        # With its fallback ONNX Runtime would print the reason to stdout and go on with another provider.
        return onnxruntime.InferenceSession(model, session_options, providers=providers, enable_fallback=0)

    def _session_options(self, settings: ProviderSettings) -> Any:
        import onnxruntime

        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = FATAL_ONLY
        session_options.intra_op_num_threads = settings.threads or 0
        for key, value in self.options.session_options.items():
            session_options.add_session_config_entry(key, value)
        if self.info.dynamic and self.provider is CPU:
            # With unknown sizes, planning memory reuse compares all maps with each other, which is most of the time to
            # open a file. The allocator frees memory in time without a plan.
            session_options.enable_mem_reuse = False
        if self.named and self.provider is not CPU:
            session_options.add_session_config_entry(RECORD_ASSIGNMENT, "1")
        return session_options

    def _check_providers(self, session: Any) -> None:
        """Raise an error if the session, or an operation other than arithmetic on shapes, runs elsewhere."""
        found = session.get_providers()
        if found[0] != self.provider.name:
            raise DeviceError(
                f"device={self.device!r}: the session runs on {', '.join(found)} instead of {self.provider.name}; "
                "check that CUDA and cuDNN match onnxruntime-gpu, or use device='cpu'",
                option="device",
            )
        if not self.named or self.provider is CPU:
            return
        left = {
            node.op_type
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name == CPU.name
            for node in part.get_nodes()
        } - SHAPE_ARITHMETIC
        if left:
            raise DeviceError(
                f"device={self.device!r}: {', '.join(sorted(left))} of {self.path} would run on the CPU; use "
                "device='auto' to allow it, or export again",
                option="device",
            )
