"""Floating-point operations of a graph, and the rate at which the machine multiplies matrices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.benchmarking.subjects import Subject

SIDE = 2048
COUNTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def graph_flops(path: Path, shape: Sequence[int]) -> float:
    """Count the operations of convolutions and matrix products in a float ONNX file, two per multiply-add.

    Shapes that depend on the input come from a run in which the graph has a Shape operator for every counted tensor.

    Args:
        path: Path of the file; its graph has one input.
        shape: Shape of that input.

    Example:
        >>> graph_flops(Path("model.onnx"), (1, 3, 256, 256)) / 1e9  # doctest: +SKIP
        128.6
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in COUNTED]
    if not nodes:
        return 0.0
    weights = {w.name: tuple(w.dims) for w in model.graph.initializer}
    tensors = {name for node in nodes for name in (*node.input[:2], node.output[0])} - set(weights)
    del model.graph.output[:]
    for name in sorted(tensors):
        model.graph.node.append(onnx.helper.make_node("Shape", [name], [f"{name}/shape"]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}/shape", onnx.TensorProto.INT64, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})
    shapes = weights | {
        name.removesuffix("/shape"): tuple(dims.tolist()) for name, dims in zip(names, found, strict=True)
    }
    return sum(_node_flops(node, shapes) for node in nodes)


def _node_flops(node: Any, shapes: dict[str, tuple[int, ...]]) -> float:
    first, second, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":  # weights (out, in / groups, *kernel)
        return 2.0 * prod(output) * prod(second[1:])
    if node.op_type == "ConvTranspose":  # weights (in, out / groups, *kernel)
        return 2.0 * prod(first) * prod(second[1:])
    if node.op_type == "MatMul":
        return 2.0 * prod(output) * first[-1]
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2.0 * prod(output) * first[0 if transposed else 1]


def matmul_run(threads: int | None) -> Any:
    """Build a product of two `SIDE` x `SIDE` matrices in ONNX Runtime, the second one constant like weights."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    dims = [SIDE, SIDE]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(right, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(_: NDArray[np.float32]) -> NDArray[np.float32]:
        session.run(None, {"a": left})
        return np.zeros((0, 1, 1), np.float32)

    return run


def matmul_subject(threads: int | None) -> Subject:
    """Return the subject that measures the rate of matrix products, in turn with the others."""
    return Subject("ONNX Runtime", f"MatMul {SIDE}", "float32", "cpu", partial(matmul_run, threads))
