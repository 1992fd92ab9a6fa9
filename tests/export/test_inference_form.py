"""The inference form equals the network, for every network, and does not change it."""

from __future__ import annotations

from typing import Any

import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from condseg_sdk.export.inference_form import inference_form
from condseg_sdk.export.plane_aggregation import aggregate_planes, plane_order
from condseg_sdk.export.symbolic import expand
from condseg_sdk.export.trace import WRITERS
from condseg_sdk.models import NETWORKS
from condseg_sdk.models.cdfa import aggregate
from tests.helpers.networks import narrow_network


@pytest.mark.parametrize("heads", [1, 3])
def test_the_plane_form_equals_the_aggregation(heads: int) -> None:
    torch.manual_seed(heads)
    scores, values = torch.randn(2, heads, 9, 9, 5, 7, dtype=torch.float64) * 4, torch.randn(2, heads, 4, 5, 7).double()
    planes = [scores.flatten(1, 3)[:, order] for order in plane_order(heads)]
    expected = aggregate(scores.softmax(3), values).flatten(1, 2)
    output = aggregate_planes(planes, values.flatten(1, 2), heads)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 2)])
def test_the_plane_form_in_onnx_equals_the_aggregation(free: bool, size: tuple[int, int]) -> None:
    heads, extreme = 2, 500.0
    torch.manual_seed(0)
    scores, values = torch.randn(2, heads, 9, 9, *size) * 4, torch.randn(2, heads, 4, *size)
    scores[0, 0, :, 4] = extreme  # a softmax that would overflow if it were written naively
    planes = [scores.flatten(1, 3)[:, order] for order in plane_order(heads)]
    feed = {f"x{i}": part.numpy() for i, part in enumerate([*planes, values.flatten(1, 2)])}
    inputs = [
        onnx_ir.Value(
            name=name,
            shape=onnx_ir.Shape(["n", x.shape[1], "h", "w"] if free else x.shape),
            type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
        )
        for name, x in feed.items()
    ]
    node = onnx_ir.node("AggregatePlanes", inputs, {"heads": heads}, domain="condseg_sdk")
    node.outputs[0].name, node.outputs[0].type = "y", inputs[0].type
    graph = onnx_ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": 18}, name="g")
    model = onnx_ir.Model(graph, ir_version=9)
    expand(model, WRITERS)
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, feed)
    expected = aggregate(scores.softmax(3), values).flatten(1, 2)
    torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"graph": True}, {"graph": True, "size": (64, 32)}], ids=str)
def test_the_inference_form_equals_the_network(name: str, options: dict[str, Any]) -> None:
    source = narrow_network(name)
    before = {key: value.clone() for key, value in source.state_dict().items()}
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        expected = source(images, aux=True)
        mask, uncertainty = inference_form(source, uncertainty=True, **options)(images)
        assert expected.uncertainty is not None
        assert (mask.sigmoid() - expected.mask.sigmoid()).abs().max() <= 1e-5
        assert (uncertainty.sigmoid() - expected.uncertainty.sigmoid()).abs().max() <= 1e-5
        assert len(inference_form(source, **options)(images)) == 1
    assert all(torch.equal(value, before[key]) for key, value in source.state_dict().items())


def test_images_of_any_size_are_padded_and_cropped_as_by_the_network() -> None:
    source = narrow_network("condseg-lite")
    images = torch.randn(1, 3, 40, 45)
    with torch.inference_mode():
        (mask,) = inference_form(source)(images)
        torch.testing.assert_close(mask, source(images).mask, rtol=1e-4, atol=1e-4)


def test_the_graph_has_no_unused_nodes() -> None:
    source = narrow_network("condseg-r50")
    form = inference_form(source, size=(256, 256))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in form.modules())
    left = sum(p.numel() for p in form.parameters())
    unused = (source.sid.uncertainty, source.aux_foreground, source.aux_background, source.aux_uncertainty)
    assert left < sum(p.numel() for p in source.parameters()) - sum(p.numel() for x in unused for p in x.parameters())
    # Dilation 18 exceeds the 16x16 map of the deepest level: one 3x3 convolution less.
    kernels = [branch[0][0].kernel_size for branch in form.dilated[-1].branches]
    assert kernels == [(1, 1), (3, 3), (3, 3), (1, 1)]
