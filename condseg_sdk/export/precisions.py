"""The precisions of an export: one row of `PRECISIONS` for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.export.quantize import to_float16, to_int8

__all__ = ["PRECISIONS", "PrecisionSpec"]

Convert = Callable[[Any, Sequence[NDArray[np.float32]]], Any]


@dataclass(frozen=True)
class PrecisionSpec:
    """How one precision is made, verified and run.

    Attributes:
        max_difference: Largest difference in probability from float32 PyTorch that verification accepts.
        min_dice: Smallest accepted mean Dice between the masks and float32 PyTorch's.
        devices: Devices of ONNX Runtime that are worth measuring it on.
        convert: Makes the model from the traced float32 one and normalized calibration images, each float32 (3, H, W).
            None leaves the model as it is.
        needs_calibration: Whether `convert` needs calibration images.
    """

    max_difference: float
    min_dice: float
    devices: tuple[str, ...]
    convert: Convert | None = None
    needs_calibration: bool = False


PRECISIONS: dict[OnnxPrecision, PrecisionSpec] = {
    "float32": PrecisionSpec(1e-4, 0.99, ("cpu", "openvino", "cuda", "tensorrt")),
    "float16": PrecisionSpec(0.05, 0.99, ("cpu", "cuda", "tensorrt"), lambda model, _: to_float16(model)),
    "int8": PrecisionSpec(1.0, 0.9, ("cpu", "openvino"), to_int8, needs_calibration=True),
}
