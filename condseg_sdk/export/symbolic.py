"""Parts of a graph that the exporter sees as one node each, and whose ONNX operators are written here.

The exporter then has little to trace, and height and width stay dynamic. `expand` replaces the nodes with ONNX
operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Tape", "expand", "placeholder"]

DOMAIN = "condseg_sdk"


def placeholder(name: str, inputs: Sequence[Tensor], attributes: Mapping[str, int], *, shape: Sequence[int]) -> Tensor:
    """Make one node while exporting; its result has the dtype of the last input and the given shape.

    Args:
        name: Name of the node, a key of `expand`'s writers.
        inputs: Inputs of the node.
        attributes: Attributes of the node.
        shape: Shape of the result.
    """
    node: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", tuple(inputs), dict(attributes), dtype=inputs[-1].dtype, shape=shape, version=1
    )
    return node


class Tape:
    """Makes ONNX nodes and keeps them in order; `tape("Add", a, b)` adds."""

    def __init__(self) -> None:
        import onnx_ir

        self.ir, self.nodes = onnx_ir, onnx_ir.tape.Tape()

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> Any:
        """Make a node and return its first result."""
        return self.nodes.op(operator, inputs, attributes)

    def ints(self, *numbers: int) -> Any:
        """Make a constant int64 (n,)."""
        return self("Constant", value=self.ir.tensor(list(numbers), dtype=self.ir.DataType.INT64))

    def int(self, number: int) -> Any:
        """Make a constant int64 ()."""
        return self("Constant", value=self.ir.tensor(number, dtype=self.ir.DataType.INT64))

    def float(self, number: float) -> Any:
        """Make a constant float32 ()."""
        return self("Constant", value=self.ir.tensor(number, dtype=self.ir.DataType.FLOAT))


Writer = Callable[[Tape, Any], Any]
"""Writes the operators of one node of an onnx-ir graph to a tape and returns their result."""


def expand(model: Any, writers: Mapping[str, Writer]) -> None:
    """Replace all placeholders of an onnx_ir.Model with ONNX operators, in place; `writers` has a function per name."""
    import onnx_ir

    for node in [node for node in model.graph if node.domain == DOMAIN]:
        tape = Tape()
        result = writers[node.op_type](tape, node)
        onnx_ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], tape.nodes.nodes, node.outputs, [result]
        )
    model.opset_imports.pop(DOMAIN, None)
