"""Conversion of a float32 model to float16 for GPUs and int8 for CPUs; inputs and outputs stay float32."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import ExportError
from condseg_sdk.export.trace import IMAGES

__all__ = ["CalibrationMethod", "sensitive_convolutions", "to_float16", "to_int8"]

CalibrationMethod = Literal["MinMax", "Entropy", "Percentile"]
"""How ONNX Runtime finds the range of an activation; docs/experiments/quantization.md compares them."""

FIRST_LEVEL = "dilated.0."  # prefix of the weights of the first block after the encoder


def to_float16(model: Any) -> Any:
    """Convert weights and arithmetic of a float32 onnx.ModelProto to float16, in a copy.

    Raises:
        ExportError: A weight is not finite in float16.
    """
    import onnx
    import onnx_ir.passes.common
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ExportError(f"{tensor.name} has weights beyond float16's 65504: use precision='float32'")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the converter lists every weight that it rounds to zero
    try:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        converted = convert_float_to_float16(copy, keep_io_types=True, op_block_list=[])
    finally:
        logging.disable(before)
    # The converter puts the casts of inputs at the end, which ONNX does not allow.
    sorted_model = onnx_ir.from_proto(converted)
    onnx_ir.passes.common.TopologicalSortPass()(sorted_model)
    return onnx_ir.to_proto(sorted_model)


def to_int8(
    model: Any,
    samples: Sequence[NDArray[np.float32]],
    *,
    method: CalibrationMethod = "MinMax",
    keep_float: Collection[str] | None = None,
) -> Any:
    """Convert convolutions to int8 by static quantization.

    Weights are int8 per output channel, activations uint8 in the range that they have on the samples (QDQ format). All
    other operators stay float32.

    Args:
        model: A float32 onnx.ModelProto from `trace`; not changed.
        samples: Normalized images, each float32 (3, H, W), of the size of the model.
        method: How the range of an activation is found.
        keep_float: Names of the convolutions that stay float32. Default: the result of `sensitive_convolutions`.

    Raises:
        ExportError: The quantizer failed.
    """
    import onnx
    import onnx_ir.passes.common
    from onnxruntime import quantization
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[NDArray[np.float32]] = iter(samples)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            sample = next(self.left, None)
            return None if sample is None else {IMAGES: sample[None]}

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, result = (Path(folder) / name for name in ("in.onnx", "prepared.onnx", "out.onnx"))
        onnx.save(model, source)
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            if keep_float is None:
                keep_float = sensitive_convolutions(onnx.load(prepared))
            quantize_static(
                prepared,
                result,
                Reader(),
                quant_format=QuantFormat.QDQ,
                # Including activations: otherwise the calibrated range is the one before them, most of which is never
                # used.
                op_types_to_quantize=["Conv", "Relu", "Clip"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*keep_float],
                calibrate_method=quantization.CalibrationMethod[method],
            )
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"the network cannot be quantized ({type(error).__name__}: {error})") from error
        finally:
            logging.disable(before)
        quantized = onnx_ir.load(result)
        onnx_ir.passes.common.RemoveUnusedOpsetsPass()(
            quantized
        )  # those of the optimizer, which the graph no longer uses
        return onnx_ir.to_proto(quantized)


def sensitive_convolutions(model: Any) -> list[str]:
    """Return the names of the convolutions that stay float32: they take little time, and int8 costs accuracy there.

    docs/experiments/quantization.md has the measurements.

    These are the convolutions with one output channel (logits, and the maps of spatial attention) and the encoder up to
    its first feature map, which has few channels.
    """
    import onnx

    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor).shape for tensor in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    makers = {output: node for node in model.graph.node for output in node.output}
    pending = [node.input[0] for node in convs if node.input[1].startswith(FIRST_LEVEL)][:1]
    early: set[str] = set()
    while pending:
        node = makers.get(pending.pop())
        if node is not None and node.name not in early:
            early.add(node.name)
            pending.extend(node.input)
    return [node.name for node in convs if node.name in early or shapes.get(node.input[1], (0,))[0] == 1]
