"""Mutations that know a format, so that damage gets past the first check of a reader."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import onnx
import torch

from .mutations import EDGES, JSON_VALUES, mutate_bytes, mutate_json, mutate_tree

__all__ = ["mutate_image", "mutate_numpy", "mutate_onnx", "mutate_safetensors", "mutate_torch", "mutate_zip"]

SIZES = (0, 1, 2, 3, 17, 255, 4096, 16_383, 30_000, 45_000, 65_535, 100_000, 2**24, 2**31 - 1, 2**32 - 1)
TENSOR_VALUES = (
    *JSON_VALUES[:-1],
    torch.zeros(0),
    torch.ones(1),
    torch.full((3, 3), float("nan")),
    torch.zeros(2, 2, dtype=torch.int64),
    torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2, 2).to_sparse(),
    torch.zeros(4, device="meta"),
    torch.zeros(1).expand(2**20, 2**20),
    np.float64(1.5),
    (1, 2),
    {1, 2},
    b"bytes",
    3 + 4j,
    torch.float16,
    torch.Size([2]),
)


def mutate_image(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Damage an image file: often its width, height or depth in the header, or whole parts of it."""
    edit = next((edit for magic, edit in _IMAGE_EDITS if data.startswith(magic)), None)
    if edit is None or rng.random() < 0.5:
        return mutate_bytes(rng, data, others)
    edited = edit(rng, data)
    return mutate_bytes(rng, edited, others) if rng.random() < 0.2 else edited


def _edit_png(rng: Random, data: bytes) -> bytes:
    """Change chunks of a PNG file and correct their checksums."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], bytearray(data[at + 8 : at + 8 + length])))
        at += 12 + length
    match rng.randrange(6):
        case 0 | 1:
            struct.pack_into(">I", chunks[0][1], rng.choice((0, 4)), rng.choice(SIZES))
        case 2:
            chunks[0][1][rng.randrange(8, 13)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        case 3:
            kind, body = rng.choice(chunks)
            if kind == b"IDAT" and len(chunks) > 1:
                pixels = mutate_bytes(rng, zlib.decompress(body))
                body[:] = zlib.compress(pixels * rng.choice((1, 1, 1, 3000)))
            else:
                body[:] = mutate_bytes(rng, bytes(body))
        case 4:
            index = rng.randrange(len(chunks))
            chunks[index : index + 1] = [chunks[index]] * rng.choice((0, 2, 200))
        case _:
            text = b"zTXt", bytearray(b"a\0\0" + zlib.compress(b"x" * 10**6))
            extra = rng.choice(
                (text, (b"acTL", bytearray(b"\0\0\0\2\0\0\0\0")), (b"eXIf", bytearray(b"II*\0\xff\xff\xff\xff")))
            )
            chunks.insert(rng.randrange(len(chunks) + 1), extra)
    parts = [data[:8]]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, bytes(body), struct.pack(">I", zlib.crc32(kind + body))]
    return b"".join(parts)


def _fields(*places: tuple[int, str]) -> Callable[[Random, bytes], bytes]:
    """Make an edit that writes a size or an edge value into one of these fields: (offset, format of `struct`)."""

    def edit(rng: Random, data: bytes) -> bytes:
        result = bytearray(data)
        for _ in range(rng.choice((1, 1, 2))):
            offset, form = rng.choice(places)
            limit = 2 ** (8 * struct.calcsize(form))
            if offset + struct.calcsize(form) <= len(result):
                struct.pack_into(form, result, offset, rng.choice((*SIZES, *EDGES)) % limit)
        return bytes(result)

    return edit


def _edit_jpeg(rng: Random, data: bytes) -> bytes:
    at = next((at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(marker)) > 0), 0)
    places = ((at + 5, ">H"), (at + 7, ">H"), (at + 4, "B"), (at + 9, "B"), (at + 11, "B"), (at + 2, ">H"))
    return _fields(*places)(rng, data)


def _edit_tiff(rng: Random, data: bytes) -> bytes:
    """Change an entry of the first directory: its value, its count, its type, or its tag."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    if at + 2 > len(data):
        return data
    (count,) = struct.unpack_from(f"{order}H", data, at)
    entry = at + 2 + 12 * rng.randrange(max(count, 1))
    wide = struct.unpack_from(f"{order}H", data, entry + 2)[0] == 4 if entry + 12 <= len(data) else True
    value = (entry + 8, f"{order}{'I' if wide else 'H'}")
    return _fields(value, value, value, (entry + 4, f"{order}I"), (entry + 2, f"{order}H"), (entry, f"{order}H"))(
        rng, data
    )


def _edit_netpbm(rng: Random, data: bytes) -> bytes:
    head = data[:15].split()
    head[rng.randrange(len(head))] = rng.choice(
        (*(str(size).encode() for size in SIZES), b"-1", b"P7", b"P4", b"#", b"1e9")
    )
    return b"\n".join(head) + b"\n" + data[15:]


def _edit_jp2(rng: Random, data: bytes) -> bytes:
    box, siz = data.find(b"ihdr"), data.find(b"\xff\x51")
    places = [(box + 4, ">I"), (box + 8, ">I"), (box + 12, ">H"), (box + 14, "B")]
    places += [(siz + 6 + 4 * i, ">I") for i in range(8)] + [(siz + 38, ">H")]
    return _fields(*places)(rng, data)


_IMAGE_EDITS: tuple[tuple[bytes, Callable[[Random, bytes], bytes]], ...] = (
    (b"\x89PNG", _edit_png),
    (b"BM", _fields((18, "<I"), (22, "<I"), (18, "<I"), (22, "<I"), (28, "<H"), (30, "<I"), (10, "<I"), (46, "<I"))),
    (b"GIF8", _fields((6, "<H"), (8, "<H"), (10, "B"), (11, "B"), (12, "B"))),
    (b"RIFF", _fields((20, "<I"), (21, "<I"), (24, "<I"), (26, "<H"), (28, "<H"), (4, "<I"), (16, "<I"), (27, "<I"))),
    (b"\xff\xd8", _edit_jpeg),
    (b"II*\0", _edit_tiff),
    (b"MM\0*", _edit_tiff),
    (b"P", _edit_netpbm),
    (b"\0\0\0\x0cjP  ", _edit_jp2),
)


def mutate_zip(
    rng: Random, data: bytes, member: Callable[[Random, str, bytes], bytes], *, names: Sequence[str] = ("", "a", "../x")
) -> bytes:
    """Rewrite a zip file with members changed, left out, renamed, repeated or compressed in another way.

    Args:
        rng: Decides everything.
        data: The zip file.
        member: Mutates the content of the member of a name.
        names: New names for members.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    index = rng.randrange(len(members))
    name, content = members[index]
    method = rng.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    match rng.randrange(8):
        case 0:
            del members[index]
        case 1:
            members[index] = (rng.choice(names), content)
        case 2:
            members.append((rng.choice(names), content))
        case 3:
            members.append((name, content[::-1]))
        case _:
            members[index] = (name, member(rng, name, content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    result = bytearray(buffer.getvalue())
    if rng.random() < 0.3:  # a field of the list of members: method, sizes, checksum, flags
        at = result.find(b"PK\1\2")
        offset, form = rng.choice(((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (42, "<I")))
        if at >= 0:
            struct.pack_into(form, result, at + offset, rng.choice(EDGES) % 2 ** (8 * struct.calcsize(form)))
    return bytes(result)


def mutate_numpy(rng: Random, data: bytes) -> bytes:
    """Damage a .npy or .npz file: often the text of an array's header."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data)
    if data.startswith(b"PK"):
        return mutate_zip(
            rng, data, lambda rng, _, content: mutate_numpy(rng, content), names=("mask.npy", "a.npy", "a", "")
        )
    length = int.from_bytes(data[8:10], "little")
    header, body = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    shape = rng.choice((0, 1, -1, 45_000, 10**6, 2**31, 2**63, 10**30))
    shapes = (
        "()",
        f"({shape},)",
        f"({shape}, {shape})",
        f"({shape}, 1, 1)",
        "(2.5, 2)",
        "'x'",
        "(1,)*99",
        "[20, 30]",
        "None",
    )
    kinds = (
        "|O",
        "<f8",
        "<f2",
        "<c16",
        "|S5",
        "<U3",
        "<M8[s]",
        "|V0",
        "|b1",
        "<i8",
        ">u4",
        "<f16",
        "x" * 100,
        "",
        "('<f4', (2,))",
    )
    match rng.randrange(6):
        case 0 | 1:
            start, end = header.find("("), header.find(")") + 1
            header = header[:start] + rng.choice(shapes) + header[end:]
        case 2 | 3:
            start = header.find("'descr': '") + 9
            end = header.find("'", start + 1) + 1
            header = header[:start] + repr(rng.choice(kinds)) + header[end:]
        case 4:
            header = mutate_bytes(rng, header.encode("latin-1")).decode("latin-1")
        case _:
            header = rng.choice(
                ("{", "(" * 300, "{'descr': '<f8'}", "import os", "\0", "{1: 2}", "'" * 3, "-" * 9000, "{'a': ")
            )
    text = header.encode("latin-1", "replace")
    length = len(text) if rng.random() < 0.9 else rng.choice(EDGES)
    version = rng.choice((1, 1, 1, 2, 3, 9))
    size = (length % 2**32).to_bytes(4, "little") if version > 1 else (length % 2**16).to_bytes(2, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + size + text + body


def mutate_safetensors(rng: Random, data: bytes) -> bytes:
    """Damage a .safetensors file: often its JSON header, or whole tensors."""
    (length,) = struct.unpack_from("<Q", data)
    header, body = data[8 : 8 + length], data[8 + length :]
    match rng.randrange(5):
        case 0:
            return mutate_bytes(rng, data)
        case 1:
            return struct.pack("<Q", rng.choice(EDGES) % 2**64) + data[8:]
        case 2:
            start = rng.randrange(len(body))
            fill = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\0\0")) * rng.choice(
                (1, 10_000)
            )
            return data[: 8 + length] + body[:start] + fill + body[start + len(fill) :]
        case _:
            header = mutate_json(rng, json.loads(header))
            return struct.pack("<Q", len(header)) + header + body


def mutate_torch(rng: Random, data: bytes) -> bytes:
    """Damage a file of `torch.save`: its container, its pickle, or what is in it."""
    choice = rng.random()
    if choice < 0.2:
        return mutate_bytes(rng, data)
    if choice < 0.45 and data.startswith(b"PK"):
        names = ("archive/data.pkl", "data.pkl", "archive/version", "")
        return mutate_zip(rng, data, lambda rng, _, content: mutate_bytes(rng, content), names=names)
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    raws: list[str] | None = None
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = mutate_tree(rng, content, TENSOR_VALUES, raws)
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer, _use_new_zipfile_serialization=rng.random() < 0.8)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, UnicodeError, pickle.PicklingError):
        return mutate_bytes(rng, data)
    return buffer.getvalue()


def mutate_onnx(rng: Random, data: bytes, metadata: Sequence[str]) -> bytes:
    """Damage an .onnx file: its metadata, its graph, its weights, or its bytes.

    Args:
        rng: Decides everything.
        data: The file.
        metadata: Keys whose values are JSON.
    """
    choice = rng.random()
    if choice < 0.15:
        return mutate_bytes(rng, data)
    model = onnx.load_from_string(data)
    if choice < 0.55:
        entry = rng.choice([entry for entry in model.metadata_props if entry.key in metadata])
        if rng.random() < 0.1:
            model.metadata_props.remove(entry)
        else:
            entry.value = mutate_json(rng, json.loads(entry.value)).decode("utf-8", "replace")
    else:
        for _ in range(rng.choice((1, 1, 2))):
            with suppress(IndexError):  # the first of two has taken away what the second would change
                rng.choice(_GRAPH_MUTATIONS)(rng, model)
    result = model.SerializeToString()
    return mutate_bytes(rng, result) if rng.random() < 0.05 else result


def _change_node(rng: Random, model: onnx.ModelProto) -> None:
    node = rng.choice(model.graph.node)
    match rng.randrange(6):
        case 0:
            kinds = (
                "Relu",
                "Conv",
                "Loop",
                "If",
                "Reshape",
                "Resize",
                "Tile",
                "ConstantOfShape",
                "Expand",
                "NoSuchOperator",
                "",
            )
            node.op_type = rng.choice(kinds)
        case 1:
            model.graph.node.remove(node)
        case 2 if node.input:
            values = [name for other in model.graph.node for name in (*other.input, *other.output)]
            node.input[rng.randrange(len(node.input))] = rng.choice((*values, "", "nowhere"))
        case 3:
            node.output[0] = rng.choice(("elsewhere", "", "mask", "images"))
        case 4:
            node.domain = rng.choice(("com.microsoft", "nowhere", "ai.onnx.ml"))
        case _:
            model.graph.node.append(node)


def _change_attribute(rng: Random, model: onnx.ModelProto) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    attribute = rng.choice(attributes)
    value = rng.choice((*EDGES[:-1], 3, 5, 100_000))
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = value
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = value
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"x", b"\xff\xfe", b"SAME_UPPER", b"nearest"))
    else:
        attribute.type = rng.choice((1, 2, 3, 4, 99))


def _change_weights(rng: Random, model: onnx.ModelProto) -> None:
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(6):
        case 0 if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, 1, -1, 2, 1000, 2**31, 2**62))
        case 1:
            tensor.raw_data = mutate_bytes(rng, tensor.raw_data)
        case 2:
            tensor.data_type = rng.choice((0, 1, 2, 6, 7, 8, 9, 10, 16, 99))
        case 3:
            tensor.raw_data = np.full(len(tensor.raw_data) // 4, rng.choice((np.nan, np.inf, 1e38, 0)), "<f4").tobytes()
        case 4:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", rng.choice(("weights.bin", "/dev/zero", "../../etc/passwd", ""))
        case _:
            dims = rng.choice(((1, 2**14, 2**14), (2**31,), (30_000, 30_000)))
            constant = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [len(dims)], dims)
            model.graph.initializer.append(constant)
            model.graph.node.insert(
                0, onnx.helper.make_node("ConstantOfShape", ["shape"], [rng.choice(("large", tensor.name))])
            )


def _change_signature(rng: Random, model: onnx.ModelProto) -> None:
    value = rng.choice((*model.graph.input, *model.graph.output))
    shape = value.type.tensor_type.shape
    match rng.randrange(6):
        case 0 | 1 if shape.dim:
            shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice((0, 1, 2, 3, 7, 64, 4096, -1))
        case 2:
            value.name = rng.choice(("mask", "images", "other", ""))
        case 3:
            value.type.tensor_type.elem_type = rng.choice((1, 2, 7, 8, 10, 11, 99))
        case 4 if model.graph.output:
            model.graph.output.remove(rng.choice(model.graph.output))
        case _:
            model.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))


def _change_model(rng: Random, model: onnx.ModelProto) -> None:
    match rng.randrange(4):
        case 0:
            model.ir_version = rng.choice((0, 1, 3, 99, 2**31))
        case 1:
            model.opset_import[0].version = rng.choice((0, 1, 7, 13, 99, 2**31))
        case 2:
            model.ClearField("graph")
        case _:
            entry = model.metadata_props.add()
            entry.key, entry.value = rng.choice(
                [(entry.key, "{}") for entry in model.metadata_props[:-1]] or [("a", "b")]
            )


_GRAPH_MUTATIONS: tuple[Callable[[Random, onnx.ModelProto], Any], ...] = (
    _change_node,
    _change_node,
    _change_attribute,
    _change_weights,
    _change_weights,
    _change_signature,
    _change_signature,
    _change_model,
)
