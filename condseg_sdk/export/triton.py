"""The configuration of an exported graph for NVIDIA's Triton Inference Server.

A model repository has a folder for each model: `NAME/config.pbtxt` and `NAME/1/model.onnx`. The rules are those of
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md and
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from condseg_sdk.files import write_bytes
from condseg_sdk.options import check_integer
from condseg_sdk.provenance import seal_pbtxt

__all__ = ["MODEL_FILE", "write_triton_config"]

MODEL_FILE = Path("1", "model.onnx")
"""Path of the graph below the folder of its model: Triton's default name, in the folder of version 1."""

TYPES = {"UINT8": "TYPE_UINT8", "INT64": "TYPE_INT64", "FLOAT": "TYPE_FP32"}
"""Triton's names of the types of our inputs and outputs, by ONNX's."""


def write_triton_config(folder: Path, *, max_batch_size: int = 8) -> Path:
    """Write config.pbtxt beside an exported graph.

    Where the first dimension of all inputs and outputs is a batch of any size, Triton puts the images of requests that
    wait into one batch; images of a batch have one size. Otherwise each request is one image.

    Args:
        folder: Folder of the model, which contains `MODEL_FILE`. Its name is the model's name.
        max_batch_size: Number of images that Triton puts into a batch at most.

    Returns:
        The path of config.pbtxt.

    Raises:
        OptionError: `max_batch_size` is not a whole number of at least 1.
        OutputError: The file cannot be written.
    """
    import onnx

    check_integer("max_batch_size", max_batch_size, least=1)
    graph = onnx.load(folder / MODEL_FILE, load_external_data=False).graph
    tensors = [*graph.input, *graph.output]
    batched = all(len(_dims(tensor)) == 4 and _dims(tensor)[0] == -1 for tensor in tensors)
    lines = [
        f'name: "{folder.absolute().name}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {max_batch_size if batched else 0}",
        *_tensors("input", graph.input, batched=batched),
        *_tensors("output", graph.output, batched=batched),
    ]
    if batched:
        lines.append("dynamic_batching { }")
    return write_bytes(folder / "config.pbtxt", seal_pbtxt("\n".join(lines)))


def _dims(tensor: Any) -> list[int]:
    """Return the dimensions of a tensor, -1 for one of any size."""
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.type.tensor_type.shape.dim]


def _tensors(field: str, tensors: Any, *, batched: bool) -> list[str]:
    """Return the lines of the inputs or the outputs; the dimension of the batch is not listed."""
    from onnx import TensorProto

    lines = [f"{field} ["]
    for number, tensor in enumerate(tensors):
        kind = TYPES[TensorProto.DataType.Name(tensor.type.tensor_type.elem_type)]
        dims = ", ".join(map(str, _dims(tensor)[int(batched) :]))
        comma = "," if number + 1 < len(tensors) else ""
        lines.append(f'  {{ name: "{tensor.name}" data_type: {kind} dims: [ {dims} ] }}{comma}')
    return [*lines, "]"]
