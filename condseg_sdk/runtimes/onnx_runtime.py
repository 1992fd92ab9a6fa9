"""ONNX Runtime as a runtime, for files that `export_onnx` wrote."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.forking import check_process
from condseg_sdk.runtimes.base import Logits, log_cpu, uses_all_cores
from condseg_sdk.runtimes.graph_check import INPUT, check_graph
from condseg_sdk.runtimes.options import OnnxOptions
from condseg_sdk.runtimes.providers import CPU, reason_of
from condseg_sdk.runtimes.session import open_session
from condseg_sdk.words import pluralize

__all__ = ["OnnxRuntime"]

TRIAL_SIDE = 32
OUT_OF_MEMORY = ("Failed to allocate memory", "BFCArena", "out of memory", "CUDA failure 2")


class OnnxRuntime:
    """An exported file in ONNX Runtime. It is safe to call from several threads.

    Args:
        path: File that `export_onnx` wrote.
        device: "auto" or the name of a device; see `open_session`.
        options: Threads, precision and session configuration; default: `OnnxOptions()`.

    Raises:
        CheckpointError: The file is damaged, cannot be read by this ONNX Runtime, or is not an export of condseg_sdk.
        DeviceError: The device cannot be used, or the session does not use it.
        OptionError: `device` is unknown, or does not support one of the options.
        OutputError: The compiled model cannot be kept.

    Example:
        >>> OnnxRuntime("model.onnx", device="cpu").providers  # doctest: +SKIP
        ('CPUExecutionProvider',)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, device: str = "auto", options: OnnxOptions | None = None
    ) -> None:
        self._path = Path(path)
        self._owner = os.getpid()
        self.config, self.info = check_graph(self._path)
        opened = open_session(self._path, device, options or OnnxOptions(), self.info)
        self._session, self._provider, self._number = opened
        if self._provider is CPU and device == "auto":
            log_cpu()
        if uses_all_cores(self.device):  # on a GPU the first prediction is slow, and TensorRT would build an engine
            self._try()

    def _try(self) -> None:
        """Run the graph once, on the smallest image that it takes, to find operations that do not work."""
        side = max(TRIAL_SIDE, self._provider.smallest_side)
        size = (side, side) if self.info.dynamic else self.config.preprocessing.size
        maps = self.run(np.zeros((1, 3, *size), np.float32), branch_uncertainty=self.info.branch_uncertainty)
        if not all(np.isfinite(values).all() for values in maps if values is not None):
            raise CheckpointError(f"{self._path} is damaged, it predicts NaN or infinity: export it again")

    network = None  # an exported graph has none

    @property
    def device(self) -> str:
        """Device that it runs on, such as "cpu", "cuda:0" or "openvino:cpu"."""
        return f"{self._provider.device}:{self._number}" if self._provider.numbered else self._provider.device

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers of the session, in order of preference."""
        return tuple(self._session.get_providers())

    def check_branch_uncertainty(self) -> None:
        """Refuse a request for the map of the uncertainty branch if the file does not have it.

        Raises:
            OptionError: The file has no uncertainty branch.
        """
        if not self.info.branch_uncertainty:
            raise OptionError(
                f"{self._path} was exported without the uncertainty branch: export with branch_uncertainty=True",
                option="branch_uncertainty",
            )

    def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
        """Return the logits of a batch of normalized images, float32 (B, 3, h, w).

        If the file takes a single image, the images are run one by one.
        """
        check_process(self._owner, self.device)
        if min(batch.shape[2:]) < self._provider.smallest_side:
            least = self._provider.smallest_side
            raise OptionError(
                f"device={self.device!r}: {batch.shape[3]}x{batch.shape[2]} is too small for it, which needs "
                f"{least}x{least}: use device='cpu'",
                option="device",
            )
        if branch_uncertainty:
            self.check_branch_uncertainty()
        names = list(self.info.outputs[: 1 + branch_uncertainty])
        groups = [batch] if self.info.dynamic else np.split(batch, len(batch))
        results = [self._checked_run(names, group) for group in groups]
        maps = [np.concatenate(parts)[:, 0] for parts in zip(*results, strict=True)]
        return Logits(maps[0], maps[1] if branch_uncertainty else None)

    def _checked_run(self, names: list[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Call `_run`, and translate the errors of ONNX Runtime."""
        remedy = f"the file is damaged or incompatible with this {self._provider.engine}; export it again"
        try:
            outputs = self._run(names, batch)
        except Exception as error:
            if isinstance(error, MemoryError) or any(word in str(error) for word in OUT_OF_MEMORY):
                raise OptionError(
                    f"there is not enough memory for a batch of {pluralize(len(batch), 'image')} in "
                    f"{self._path}: lower batch_size",
                    option="batch_size",
                ) from error
            raise CheckpointError(f"{self._path} cannot be run ({reason_of(error)}): {remedy}") from error
        expected = (len(batch), 1, *batch.shape[2:])
        for name, output in zip(names, outputs, strict=True):
            if output.shape != expected:
                raise CheckpointError(
                    f"{self._path} cannot be run ({name} has the shape {output.shape}, not {expected}): {remedy}"
                )
        return outputs

    def _run(self, names: list[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Compute outputs by their names."""
        if self._provider.memory == "cpu":
            outputs: list[NDArray[np.float32]] = self._session.run(names, {INPUT: batch})
            return outputs
        return self._run_bound(names, batch)

    def _run_bound(self, names: list[str], batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Do the same with outputs that stay on the GPU until they are copied: no operation waits for a copy."""
        binding = self._session.io_binding()
        binding.bind_cpu_input(INPUT, batch)
        for name in names:
            binding.bind_output(name, self._provider.memory, self._number)
        self._session.run_with_iobinding(binding)
        copied: list[NDArray[np.float32]] = binding.copy_outputs_to_cpu()
        return copied
