"""Traces of networks that are made once, since each takes ten seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import pytest

from condseg_sdk.export import onnx as export
from condseg_sdk.models import ConDSeg


@contextmanager
def kept_traces() -> Iterator[None]:
    """Let exports of the same network with the same options share a trace, each with a copy of its own."""
    kept: dict[tuple[str, str], onnx.ModelProto] = {}
    trace = export.trace

    def trace_once(network: ConDSeg, **options: Any) -> onnx.ModelProto:
        digest = hashlib.sha256(repr(network.arguments).encode())
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        key = (digest.hexdigest(), repr(sorted(options.items())))
        if key not in kept:
            kept[key] = trace(network, **options)
        copy = onnx.ModelProto()
        copy.CopyFrom(kept[key])
        return copy

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(export, "trace", trace_once)
        yield
