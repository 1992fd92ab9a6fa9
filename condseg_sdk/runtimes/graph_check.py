"""Checks an .onnx file before ONNX Runtime opens it: its metadata, inputs and outputs, and the memory that it needs.

ONNX Runtime computes constants while it opens a file, so a damaged file of a kilobyte can fill the memory, and it
notices a missing output only at the first prediction.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.checkpoints.onnx_metadata import ExportInfo, read_metadata
from condseg_sdk.errors import CheckpointError

if TYPE_CHECKING:
    import onnx

__all__ = ["INPUT", "check_graph"]

INPUT = "images"
MAX_FILE = 2**30  # five times the largest published network
SHAPE_BYTES = 1024  # tensors up to this size may be shapes, which shape inference reads
MIN_BUDGET = 2**30  # memory for one image at the checkpoint's size; our networks need a tenth of it at 256x256
BYTES_PER_PIXEL = 2**13  # the same for larger images; the published networks need about 3 KiB per pixel
REMEDY = "the file is damaged or incompatible with this release; export it again"


def check_graph(path: Path) -> tuple[CheckpointConfig, ExportInfo]:
    """Check an exported file without executing any part of it.

    Returns:
        The checkpoint's config and how the file was exported.

    Raises:
        CheckpointError: The file cannot be read, is damaged, is not an export of condseg_sdk, contains its
            preprocessing, lacks an input or output that its metadata lists, or would need too much memory.
    """
    model = _read(path)
    config, info = read_metadata({entry.key: entry.value for entry in model.metadata_props}, source=path)
    if info.preprocessing:
        raise CheckpointError(
            f"{path} contains its preprocessing, for programs without this package (docs/onnx.md): export "
            "with preprocessing=False to use it here"
        )
    try:
        _check_texts(model.graph)
        _check_interface(model.graph, config, info)
        _check_constants(model)
        _check_memory(model, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be opened ({error}): {REMEDY}") from error
    return config, info


def _read(path: Path) -> onnx.ModelProto:
    import onnx  # not at the top: loading it takes a while and only .onnx files need it
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        if path.stat().st_size > MAX_FILE:
            raise CheckpointError(f"{path} is larger than {MAX_FILE // 2**20} MiB, too large for a ConDSeg network")
        return onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}): check that the file is there") from error
    except (DecodeError, ValueError, RecursionError, MemoryError) as error:  # UnicodeDecodeError is a ValueError
        raise CheckpointError(f"{path} cannot be opened (it is not an ONNX file): {REMEDY}") from error


def _check_texts(graph: onnx.GraphProto) -> None:
    """Refuse names that are not UTF-8: ONNX Runtime raises a UnicodeDecodeError for them and prints to stdout."""
    for node in graph.node:
        names = (node.name, node.op_type, node.domain, *node.input, *node.output)
        values = ((a.name, a.s, *a.strings) for a in node.attribute)
        for text in chain(names, *values):
            if isinstance(text, bytes):
                try:
                    text.decode()
                except UnicodeDecodeError as error:
                    raise CheckpointError(f"{reprlib.repr(text)} in it is not UTF-8 text") from error


def _check_interface(graph: onnx.GraphProto, config: CheckpointConfig, info: ExportInfo) -> None:
    """Compare inputs and outputs with the metadata."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if [value.name for value in inputs] != [INPUT] or not _is_float(inputs[0]):
        names = reprlib.repr([value.name for value in inputs])
        raise CheckpointError(f"its inputs are {names}, not the float32 tensor {INPUT!r}")
    sides = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]  # 0: dynamic
    expected = (1, 3, *config.preprocessing.size)
    fits = len(sides) == 4 and all(found in (0, wanted) for found, wanted in zip(sides, expected, strict=True))
    if not fits or (info.dynamic and any(sides[axis] for axis in (0, 2, 3))):
        raise CheckpointError(f"its input is {reprlib.repr(sides)}, its metadata says {list(expected)}")
    floats = {value.name for value in graph.output if _is_float(value)}
    missing = [name for name in info.outputs if name not in floats]
    if missing:
        raise CheckpointError(f"its metadata lists the output {missing[0]!r}, which is not in its graph")


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return int(value.type.tensor_type.elem_type) == 1  # onnx.TensorProto.FLOAT


def _check_constants(model: onnx.ModelProto) -> None:
    """Check that every stored tensor is in the file with the size it declares, and nothing else can be large."""
    import onnx

    graph = model.graph
    if model.functions or graph.sparse_initializer:
        raise CheckpointError("it contains functions or sparse tensors, which export_onnx does not write")
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    kinds = onnx.AttributeProto
    single = (kinds.FLOAT, kinds.INT, kinds.STRING, kinds.TENSOR, kinds.FLOATS, kinds.INTS, kinds.STRINGS)
    if any(attribute.type not in single for attribute in attributes):
        raise CheckpointError("it contains loops, branches or sparse tensors, which export_onnx does not write")
    for tensor in chain(graph.initializer, (a.t for a in attributes if a.type == kinds.TENSOR)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise CheckpointError(f"the tensor {reprlib.repr(tensor.name)} is in another file")
        promised, stored = _sizes(tensor)
        if stored < promised:
            raise CheckpointError(f"the tensor {reprlib.repr(tensor.name)} is incomplete")
        if len(tensor.raw_data) > SHAPE_BYTES:
            tensor.ClearField("raw_data")  # it has been counted, and shape inference would copy it


def _sizes(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Return the size that a tensor declares and the size it has: in bytes for raw data, otherwise in elements."""
    if any(dim < 0 for dim in tensor.dims):
        raise CheckpointError(f"the tensor {reprlib.repr(tensor.name)} has a negative size")
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        return count * _bytes(tensor.data_type), len(tensor.raw_data)
    lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return count, max(map(len, (*lists, tensor.string_data)))


def _bytes(data_type: int) -> int:
    """Return the bytes of one element; 8, the maximum, for a type that this version of ONNX does not know."""
    import onnx

    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    except (KeyError, TypeError, ValueError):
        return 8
    return int(dtype.itemsize)


def _check_memory(model: onnx.ModelProto, config: CheckpointConfig) -> None:
    """Estimate the memory that one image of the checkpoint's size needs, from the shapes of all tensors."""
    height, width = config.preprocessing.size
    budget = max(MIN_BUDGET, BYTES_PER_PIXEL * height * width)
    bytes_of = _inferred_bytes(model, (1, 3, height, width))
    last_use = {name: index for index, node in enumerate(model.graph.node) for name in node.input}
    from_image, live = {INPUT}, sum(_sizes_of_initializers(model.graph))
    ends: dict[int, list[str]] = {}
    for index, node in enumerate(model.graph.node):
        depends = any(name in from_image for name in node.input)
        for name in filter(None, node.output):
            if name not in bytes_of:
                if not depends:  # ONNX Runtime would compute it while it opens the file
                    raise CheckpointError(f"the size of the constant {reprlib.repr(name)} is unknown")
                continue
            live += bytes_of[name]
            if depends:
                ends.setdefault(last_use.get(name, index), []).append(name)
        if depends:
            from_image.update(node.output)
        if live > budget:
            kind = reprlib.repr(node.op_type)
            raise CheckpointError(f"its operation {kind} would need more than {budget // 2**20} MiB of memory")
        live -= sum(bytes_of[name] for name in ends.pop(index, []))


def _sizes_of_initializers(graph: onnx.GraphProto) -> Iterator[int]:
    return (math.prod(tensor.dims) * _bytes(tensor.data_type) for tensor in graph.initializer)


def _inferred_bytes(model: onnx.ModelProto, shape: Sequence[int]) -> Mapping[str, int]:
    """Return the bytes, by name, of the tensors whose shape follows from the shape of the input."""
    import onnx

    graph = model.graph
    del graph.value_info[:]  # declared by the file; only what follows from the operations counts
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in graph.input:
        if value.name == INPUT:
            for dim, side in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                dim.dim_value = side
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # onnx's C++ code may raise any exception
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(f"its operations do not fit together: {lines[0][:200]}") from error
    return {
        value.name: math.prod(size) * _bytes(value.type.tensor_type.elem_type)
        for value in chain(inferred.value_info, inferred.output)
        if (size := _known_shape(value)) is not None
    }


def _known_shape(value: onnx.ValueInfoProto) -> list[int] | None:
    kind = value.type.tensor_type
    dims = kind.shape.dim
    known = kind.HasField("shape") and all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
    return [dim.dim_value for dim in dims] if known else None
