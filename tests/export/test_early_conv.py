"""Convolutions before upsampling equal those after it, in PyTorch and in ONNX, whole and in parts."""

from __future__ import annotations

import onnx_ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from condseg_sdk.export.early_conv import CUT, MIX, EarlyConv, MergedConv, cut_rows, mix_rows, row_weights
from condseg_sdk.export.symbolic import expand
from condseg_sdk.export.trace import WRITERS
from condseg_sdk.models.layers import upsample


def parameters(out_channels: int, in_channels: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(out_channels, in_channels, 3, 3), torch.randn(out_channels)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 3, 4]), st.booleans())
def test_an_early_convolution_equals_one_after_upsampling(height: int, width: int, scale: int, biased: bool) -> None:
    weight, bias = parameters(4, 3)
    x = torch.randn(2, 3, height, width)
    expected = F.conv2d(upsample(x, scale), weight, bias if biased else None, padding=1)
    output = EarlyConv(weight, bias if biased else None, scale)(x)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([2, 4]))
def test_parts_add_up_to_the_whole(step: int, parts: int, scale: int) -> None:
    conv = EarlyConv(*parameters(2, 3), scale)
    x = torch.randn(1, 3, step * parts, 5)
    together = torch.cat([conv.part(x, index, parts) for index in range(parts)], 2)
    torch.testing.assert_close(together, conv(x), rtol=1e-5, atol=1e-5)


def test_row_weights_equal_those_computed_by_hand() -> None:
    """Two rows to four: rows 0, 1/3, 2/3, 1 of the way; beyond the map there is nothing."""
    third = 1 / 3
    above, here, below = row_weights(slice(0, 4), slice(0, 2), rows=2, scale=2).unflatten(1, (3, 2)).unbind(1)
    expected = torch.tensor([[1, 0], [2 * third, third], [third, 2 * third], [0, 1]])
    torch.testing.assert_close(here, expected)
    torch.testing.assert_close(above, torch.cat((torch.zeros(1, 2), expected[:-1])))
    torch.testing.assert_close(below, torch.cat((expected[1:], torch.zeros(1, 2))))


def test_a_merged_convolution_equals_the_one_after_a_concatenation() -> None:
    weight, bias = parameters(4, 9)
    conv = torch.nn.Conv2d(9, 4, 3, padding=1)
    conv.weight, conv.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    parts = [torch.randn(2, channels, 24 // scale, 16 // scale) for channels, scale in ((4, 1), (3, 2), (2, 4))]
    expected = F.relu(conv(torch.cat([upsample(x, s) for x, s in zip(parts, (1, 2, 4), strict=True)], 1)))
    torch.testing.assert_close(MergedConv(conv, (4, 3, 2), (1, 2, 4))(*parts), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(("rows", "scale", "index", "parts"), [(1, 2, 0, 1), (8, 2, 0, 4), (8, 2, 2, 4), (8, 4, 3, 4)])
def test_the_onnx_operators_equal_the_module(free: bool, rows: int, scale: int, index: int, parts: int) -> None:
    """Both placeholders, their operators run by ONNX Runtime, against the PyTorch functions."""
    torch.manual_seed(0)
    coarse = torch.randn(2, 4, rows, 5)
    cut = cut_rows(coarse, index=index, parts=parts)
    convolved = torch.randn(2, 3 * 4, cut.shape[2], 10)
    expected = mix_rows(convolved, coarse, scale=scale, index=index, parts=parts)

    def value(name: str, x: Tensor) -> onnx_ir.Value:
        shape = onnx_ir.Shape(["n", x.shape[1], f"{name}_h", f"{name}_w"] if free else x.shape)
        return onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))

    inputs = [value("convolved", convolved), value("coarse", coarse)]
    attributes = {"index": index, "parts": parts}
    nodes = [
        onnx_ir.node(MIX, inputs, {"scale": scale, **attributes}, domain="condseg_sdk"),
        onnx_ir.node(CUT, inputs[1:], attributes, domain="condseg_sdk"),
    ]
    for node, name in zip(nodes, ("mixed", "cut"), strict=True):
        node.outputs[0].name, node.outputs[0].type = name, inputs[0].type
    outputs = [node.outputs[0] for node in nodes]
    graph = onnx_ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 18}, name="g")
    model = onnx_ir.Model(graph, ir_version=9)
    expand(model, WRITERS)
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs = session.run(None, {"convolved": convolved.numpy(), "coarse": coarse.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs[0]), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.from_numpy(outputs[1]), cut)
