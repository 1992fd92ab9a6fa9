"""Parts of a graph that an exporter sees as one node each, and that we write in ONNX ourselves.

It has little to trace then, and height and width stay free without a guess at what they are. `expand` puts ONNX's own
operators in the place of the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Tape", "expand", "placeholder"]

DOMAIN = "condseg_sdk"


def placeholder(name: str, inputs: Sequence[Tensor], attributes: Mapping[str, int], *, shape: Sequence[int]) -> Tensor:
    """One node while exporting, with a result of the last input's dtype and of `shape`."""
    node: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", tuple(inputs), dict(attributes), dtype=inputs[-1].dtype, shape=shape, version=1
    )
    return node


class Tape:
    """Makes ONNX nodes and keeps them in order; `tape("Add", a, b)` is the sum."""

    def __init__(self) -> None:
        import onnx_ir

        self.ir, self.nodes = onnx_ir, onnx_ir.tape.Tape()

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> Any:
        return self.nodes.op(operator, inputs, attributes)

    def ints(self, *numbers: int) -> Any:
        """int64 (n,)."""
        return self("Constant", value=self.ir.tensor(list(numbers), dtype=self.ir.DataType.INT64))

    def int(self, number: int) -> Any:
        """int64 ()."""
        return self("Constant", value=self.ir.tensor(number, dtype=self.ir.DataType.INT64))

    def float(self, number: float) -> Any:
        """float32 ()."""
        return self("Constant", value=self.ir.tensor(number, dtype=self.ir.DataType.FLOAT))


Writer = Callable[[Tape, Any], Any]
"""Writes the operators of one node of an onnx-ir graph onto a tape and returns their result."""


def expand(model: Any, writers: Mapping[str, Writer]) -> None:
    """Put ONNX's own operators in the place of every placeholder of an onnx-ir model, in place.

    Args:
        model: an onnx_ir.Model.
        writers: for each placeholder's name.
    """
    import onnx_ir

    for node in [node for node in model.graph if node.domain == DOMAIN]:
        tape = Tape()
        result = writers[node.op_type](tape, node)
        onnx_ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], tape.nodes.nodes, node.outputs, [result]
        )
    model.opset_imports.pop(DOMAIN, None)
