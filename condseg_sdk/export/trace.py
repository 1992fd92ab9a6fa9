"""The inference form of a network as an ONNX model in float32, by PyTorch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from condseg_sdk.collector import collector_paused
from condseg_sdk.errors import ExportError
from condseg_sdk.export import early_conv, graph_layers, plane_aggregation
from condseg_sdk.export.inference_form import InferenceForm, inference_form
from condseg_sdk.export.symbolic import Tape, expand
from condseg_sdk.models import ConDSeg

__all__ = ["IMAGES", "OUTPUTS", "trace"]

IMAGES, OUTPUTS = "images", ("mask", "branch_uncertainty")
AXES = {0: "batch", 2: "height", 3: "width"}
WRITERS = {
    plane_aggregation.NODE: plane_aggregation.write_aggregation,
    early_conv.CUT: early_conv.write_cut,
    early_conv.MIX: early_conv.write_mix,
    graph_layers.GROUPED: graph_layers.write_grouped,
}
SIZED = {"Reshape", "Expand", "Slice", "Tile", "ConstantOfShape"}
"""Operators that a traced graph has only if it depends on the size of its example."""
POOLING = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


@collector_paused()
def trace(network: ConDSeg, *, size: tuple[int, int], dynamic: bool, uncertainty: bool, opset: int) -> Any:
    """Trace a network to an onnx.ModelProto, which `export_onnx` checks when it is finished.

    Args:
        network: A trained network; not changed.
        size: (H, W) of its images, of all of them unless `dynamic`.
        dynamic: Whether the number of images, height and width are dynamic. Otherwise the graph takes one image.
        uncertainty: Whether the graph has the map of the uncertainty branch as a second output.
        opset: Version of the ONNX operators.

    Raises:
        ExportError: The exporter failed.
    """
    import onnx_ir

    with _silence():
        try:
            model = _of_free_sizes(network, uncertainty, opset) if dynamic else None
            if model is None:
                model = _of_given_sizes(network, size, dynamic, uncertainty, opset)
        except Exception as error:
            raise ExportError(f"the network cannot be exported ({type(error).__name__}: {error})") from error
    if dynamic:
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.shape = onnx_ir.Shape([AXES.get(axis, known) for axis, known in enumerate(value.shape)])
    onnx_ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    onnx_ir.passes.common.DeduplicateInitializersPass()(model)
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(model)  # stack traces with this machine's paths
    proto = onnx_ir.to_proto(model)
    del proto.graph.value_info[:]  # the exporter's symbols; readers of the file infer shapes themselves
    return proto


def _of_free_sizes(network: ConDSeg, uncertainty: bool, opset: int) -> Any:
    """Trace a network at one size and make the graph independent of it; return None if that is impossible.

    The exporter takes three times as long with unknown sizes. Networks of convolutions do not need that: each of their
    operators works at any size, once images are padded to the stride and maps are cropped again.
    """
    import onnx_ir

    form = inference_form(network, uncertainty=uncertainty, graph=True).cpu()
    form.size = (2 * form.stride, 3 * form.stride)
    model = _exported(form, torch.zeros(2, 3, *form.size), None, uncertainty, opset)
    if any(_has_a_size(node) for node in model.graph):
        return None
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None:
                value.shape = onnx_ir.Shape([n if axis == 1 else None for axis, n in enumerate(value.shape)])
    _finish(model)
    _pad_and_crop(model, form.stride)
    return model


def _has_a_size(node: Any) -> bool:
    """Return whether a node of a traced graph depends on the size of its example."""
    sizes = node.inputs[3] if node.op_type == "Resize" and len(node.inputs) > 3 else None
    return node.op_type in SIZED or sizes is not None


def _pad_and_crop(model: Any, stride: int) -> None:
    """Repeat the last row and column of images up to the stride, and crop the maps to the size of the images."""
    (images,) = model.graph.inputs
    tape = Tape()
    size = tape("Shape", images, start=2, end=4)
    after = tape("Mod", tape("Neg", size), tape.ints(stride))
    padded = tape("Pad", images, tape("Concat", tape.ints(*[0] * 6), after, axis=0), mode="edge")
    for user, index in list(images.uses()):
        if user not in tape.nodes.nodes:
            user.replace_input_with(index, padded)
    model.graph.insert_before(model.graph[0], tape.nodes.nodes)
    for index, output in enumerate(list(model.graph.outputs)):
        tape = Tape()
        cropped = tape("Slice", output, tape.ints(0, 0), size, tape.ints(2, 3))
        cropped.dtype, cropped.shape = output.dtype, output.shape
        cropped.name, output.name = output.name, f"{output.name}.padded"
        model.graph.extend(tape.nodes.nodes)
        model.graph.outputs[index] = cropped


def _of_given_sizes(network: ConDSeg, size: tuple[int, int], dynamic: bool, uncertainty: bool, opset: int) -> Any:
    """Trace a network at its size, or with sizes unknown to the exporter if `dynamic`."""
    form = inference_form(network, uncertainty=uncertainty, size=None if dynamic else size, graph=True).cpu()
    # The exporter treats sizes of 1 as constants.
    example = torch.zeros(2 if dynamic else 1, 3, *size)
    free = (dict.fromkeys(AXES, torch.export.Dim.DYNAMIC),) if dynamic else None
    model = _exported(form, example, free, uncertainty, opset)
    _finish(model)
    return model


def _finish(model: Any) -> None:
    _pool_globally(model)
    expand(model, WRITERS)


def _exported(form: InferenceForm, example: torch.Tensor, free: Any, uncertainty: bool, opset: int) -> Any:
    import onnxscript.optimizer

    program = torch.onnx.export(
        form,
        (example,),
        dynamo=True,
        input_names=[IMAGES],
        output_names=list(OUTPUTS[: 1 + uncertainty]),
        dynamic_shapes=free,
        opset_version=opset,
        verbose=False,
        optimize=False,
    )
    assert program is not None
    onnxscript.optimizer.optimize(program.model, num_iterations=1)  # twice changes nothing that matters
    return program.model


def _pool_globally(model: Any) -> None:
    """Replace mean and maximum over height and width with pooling, for which ONNX Runtime keeps its own layout."""
    for node in model.graph:
        if node.op_type not in POOLING or len(node.inputs) < 2 or node.inputs[1].const_value is None:
            continue
        keeps = node.attributes.get("keepdims")
        rank = None if node.inputs[0].shape is None else len(node.inputs[0].shape)
        axes = sorted(int(axis) % 4 for axis in node.inputs[1].const_value.numpy())
        if rank == 4 and axes == [2, 3] and (keeps is None or keeps.as_int() == 1):
            node.op_type = POOLING[node.op_type]
            node.attributes.clear()
            node.resize_inputs(1)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress lines, warnings and log messages from the user; errors are raised, not printed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
