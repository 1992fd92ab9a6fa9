"""The options that belong to one runtime, for `Predictor.from_pretrained(runtime=...)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from condseg_sdk.errors import OptionError
from condseg_sdk.options import check_choice, check_flags, check_integer

__all__ = ["ONNX_DEVICES", "Execution", "OnnxOptions", "Precision", "RuntimeName", "TorchOptions"]

RuntimeName = Literal["torch", "onnx"]
Precision = Literal["float32", "float16", "bfloat16"]
Execution = Literal["eager", "compiled", "cuda-graph"]

MAX_THREADS = 1024
ONNX_DEVICES = ("tensorrt", "tensorrt-rtx", "webgpu", "openvino", "openvino:gpu", "openvino:npu")
"""Devices for .onnx files that PyTorch does not have; each but "webgpu" and OpenVINO's may have a GPU's number."""


@dataclass(frozen=True)
class TorchOptions:
    """How PyTorch runs a checkpoint.

    Args:
        precision: Precision of the arithmetic: "float32"; on a GPU also "float16" or "bfloat16"; "bfloat16" also on a
            CPU with AVX512_BF16, where it is 1.1 to 2.1 times as fast (docs/benchmarks.md). The network's input and
            logits stay float32.
        execution: "eager"; "compiled" by torch.compile, which takes minutes at the first image of each size; or, on a
            CUDA device, "cuda-graph", one graph recorded for each size of a batch and replayed, without the cost of
            launching kernels.

    Raises:
        OptionError: A value is not one of these.

    Example:
        >>> from condseg_sdk import Predictor, TorchOptions
        >>> Predictor.from_pretrained(
        ...     "condseg-lite-polyp", device="cuda", runtime=TorchOptions(precision="float16")
        ... )  # doctest: +SKIP
    """

    precision: Precision = "float32"
    execution: Execution = "eager"

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, Precision)
        check_choice("execution", self.execution, Execution)


@dataclass(frozen=True)
class OnnxOptions:
    """How ONNX Runtime runs an exported file.

    Args:
        threads: Number of CPU threads for one operation. Default: the number of physical cores, or fewer if affinity or
            the CPU quota of a container allows fewer.
        session_options: Entries of ONNX Runtime's session configuration; OpenVINO's devices have none.
        precision: Precision of the arithmetic, for devices that can compute in a lower one than the file's: "bfloat16"
            with device="openvino", "float16" with device="openvino:gpu". Default: "float32", and on an NPU, which has
            no other, "float16".
        cache_compiled: Whether to keep the compiled model in Hugging Face's cache, so that a file opens faster the next
            time; for OpenVINO's devices. TensorRT, which takes minutes, always keeps its own.

    Raises:
        OptionError: A value has the wrong type or is out of range.

    Example:
        >>> OnnxOptions(threads=1, session_options={"session.intra_op.allow_spinning": "0"}).threads
        1
    """

    threads: int | None = None
    session_options: Mapping[str, str] = field(default_factory=dict)
    precision: Precision | None = None
    cache_compiled: bool = False

    def __post_init__(self) -> None:
        check_flags(cache_compiled=self.cache_compiled)
        if self.precision is not None:
            check_choice("precision", self.precision, Precision)
        if self.threads is not None:
            check_integer("threads", self.threads, least=1, most=MAX_THREADS)
        if not isinstance(self.session_options, Mapping) or not all(
            isinstance(text, str) for pair in self.session_options.items() for text in pair
        ):
            raise OptionError(
                f"session_options={self.session_options!r} must map names to values, all of them strings",
                option="session_options",
            )
