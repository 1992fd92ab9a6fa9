"""A network's inference form as an ONNX model in float32, by PyTorch's own exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from condseg_sdk.errors import ExportError
from condseg_sdk.export import early_conv, plane_aggregation
from condseg_sdk.export.inference_form import InferenceForm, inference_form
from condseg_sdk.export.symbolic import expand
from condseg_sdk.models import ConDSeg

__all__ = ["IMAGES", "OUTPUTS", "trace"]

IMAGES, OUTPUTS = "images", ("mask", "branch_uncertainty")
AXES = {0: "batch", 2: "height", 3: "width"}
WRITERS = {
    plane_aggregation.NODE: plane_aggregation.write_aggregation,
    early_conv.CUT: early_conv.write_cut,
    early_conv.MIX: early_conv.write_mix,
}
POOLING = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def trace(network: ConDSeg, *, size: tuple[int, int], dynamic: bool, uncertainty: bool, opset: int) -> Any:
    """The model, an onnx.ModelProto that has passed ONNX's checker.

    Args:
        network: trained; not changed.
        size: (H, W) of its images, all there will be unless `dynamic`.
        dynamic: leave the number of images, height and width free; otherwise it is one image.
        uncertainty: give it the second output.
        opset: of ONNX's operators.

    Raises:
        ExportError: the exporter failed.
    """
    import onnx
    import onnx_ir

    form = inference_form(network, uncertainty=uncertainty, size=None if dynamic else size, graph=True).cpu()
    # The exporter takes sizes of 1 for constants.
    example = torch.zeros(2 if dynamic else 1, 3, *size)
    free = (dict.fromkeys(AXES, torch.export.Dim.DYNAMIC),) if dynamic else None
    with _silence():
        try:
            model = _exported(form, example, free, uncertainty, opset)
        except Exception as error:
            raise ExportError(f"the network cannot be exported ({type(error).__name__}: {error})") from error
    _pool_globally(model)
    expand(model, WRITERS)
    if dynamic:
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.shape = onnx_ir.Shape([AXES.get(axis, known) for axis, known in enumerate(value.shape)])
    onnx_ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    onnx_ir.passes.common.DeduplicateInitializersPass()(model)
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(model)  # stack traces with this machine's paths
    proto = onnx_ir.to_proto(model)
    del proto.graph.value_info[:]  # the exporter's symbols; what reads the file infers shapes itself
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _exported(form: InferenceForm, example: torch.Tensor, free: Any, uncertainty: bool, opset: int) -> Any:
    program = torch.onnx.export(
        form,
        (example,),
        dynamo=True,
        input_names=[IMAGES],
        output_names=list(OUTPUTS[: 1 + uncertainty]),
        dynamic_shapes=free,
        opset_version=opset,
        verbose=False,
    )
    assert program is not None
    return program.model


def _pool_globally(model: Any) -> None:
    """Mean and maximum over height and width as pooling, for which ONNX Runtime need not leave its own layout."""
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
