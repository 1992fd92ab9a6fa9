"""Traces of networks that are made once for all test processes, since each takes ten seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import onnx_ir.passes.common
import pytest
from filelock import FileLock

from condseg_sdk.export import onnx as export
from condseg_sdk.models import ConDSeg


@contextmanager
def kept_traces(folder: Path) -> Iterator[None]:
    """Let exports of the same network with the same options share a trace, which is kept in a folder.

    Each is made with the uncertainty branch, and cut where an export has none; tests of `trace` itself call it directly.
    """
    trace = export.trace

    def trace_once(network: ConDSeg, *, uncertainty: bool, **options: Any) -> onnx.ModelProto:
        digest = hashlib.sha256(repr((network.arguments, sorted(options.items()))).encode())
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        file = folder / f"{digest.hexdigest()}.onnx"
        with FileLock(f"{file}.lock"):  # another process may be making it
            if not file.exists():
                onnx.save(trace(network, uncertainty=True, **options), file)
        model = onnx.load(file)
        return model if uncertainty else without_uncertainty(model)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(export, "trace", trace_once)
        yield


def without_uncertainty(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the second output of a trace and what only it needs."""
    model = onnx_ir.from_proto(proto)
    del model.graph.outputs[1:]
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    proto = onnx_ir.to_proto(model)
    del proto.graph.value_info[:]  # as `trace` leaves it
    return proto
