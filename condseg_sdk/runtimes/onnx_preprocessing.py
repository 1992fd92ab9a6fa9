"""Preprocessing as part of a graph, so that a program in another language needs nothing but ONNX Runtime.

In goes an image as it is, out comes a probability for each of its pixels. The arithmetic is that of `Preprocessing` and
`restore`, but for the rounding between Pillow's two passes of a resize.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from condseg_sdk.errors import OptionError
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.trace import IMAGES, OUTPUTS

__all__ = ["IMAGE", "PROBABILITIES", "add_preprocessing"]

IMAGE, PROBABILITIES = "image", ("probability", "uncertainty_probability")


def add_preprocessing(model: Any, preprocessing: Preprocessing) -> None:
    """Put resizing, colour order and normalisation before a model for one image, and resizing and a sigmoid behind it.

    Args:
        model: onnx.ModelProto from `trace`, not dynamic, also with fewer bits; changed in place. Its input becomes
            "image", uint8 RGB (height, width, 3), its outputs "probability" and, where it has one,
            "uncertainty_probability", float32 (height, width) in [0, 1], both sizes free.
        preprocessing: of the checkpoint.

    Raises:
        OptionError: the interpolation is OpenCV's INTER_AREA, which no ONNX operator does.
    """
    import onnx
    from onnx import TensorProto, helper

    if preprocessing.interpolation == "area":
        raise OptionError("preprocessing=True: ONNX has no interpolation 'area'; export with preprocessing=False")
    outputs = [output.name for output in model.graph.output]
    nodes = list(model.graph.node)
    parts = _Parts(preprocessing)
    del model.graph.node[:], model.graph.input[:], model.graph.output[:]
    model.graph.node.extend([*parts.before(), *nodes, *(node for name in outputs for node in parts.after(name))])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in parts.constants.items())
    model.graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["height", "width", 3]))
    for name in outputs:
        result = PROBABILITIES[OUTPUTS.index(name)]
        model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, ["height", "width"]))


class _Parts:
    """The nodes, and the constants they use."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        name = f"preprocessing.{name}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def resize(self, source: str, size: str, result: str, *, antialias: bool) -> Any:
        from onnx import helper

        # Beyond the border there is nothing, as for Pillow; by default ONNX repeats the border's pixels there.
        smooth: dict[str, Any] = {"antialias": 1, "exclude_outside": 1} if antialias else {}
        return helper.make_node(
            "Resize", [source, "", "", size], [result], mode="linear", **smooth, name=f"resize_{source}"
        )

    def before(self) -> Iterator[Any]:
        from onnx import TensorProto, helper

        p = self.preprocessing
        size = self.constant("size", (1, 3, *p.size), np.int64)
        yield helper.make_node("Cast", [IMAGE], ["image.float"], to=TensorProto.FLOAT)
        yield helper.make_node("Transpose", ["image.float"], ["image.planes"], perm=[2, 0, 1])
        yield helper.make_node("Unsqueeze", ["image.planes", self.constant("first", [0], np.int64)], ["image.batch"])
        yield self.resize("image.batch", size, "image.resized", antialias=p.interpolation == "antialias")
        yield helper.make_node("Round", ["image.resized"], ["image.rounded"])
        last = "image.rounded"
        if p.color_order == "bgr":
            order = self.constant("order", [2, 1, 0], np.int64)
            yield helper.make_node("Gather", [last, order], ["image.bgr"], axis=1)
            last = "image.bgr"
        yield helper.make_node("Mul", [last, self.constant("scale", p.scale)], ["image.scaled"])
        mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (p.mean, p.std))
        yield helper.make_node("Sub", ["image.scaled", self.constant("mean", mean)], ["image.centred"])
        yield helper.make_node("Div", ["image.centred", self.constant("std", std)], [IMAGES])
        # The size to come back to: (1, 1, height, width).
        yield helper.make_node("Shape", [IMAGE], ["image.size"], start=0, end=2)
        one = self.constant("one", [1, 1], np.int64)
        yield helper.make_node("Concat", [one, "image.size"], ["image.map"], axis=0)

    def after(self, name: str) -> Iterator[Any]:
        from onnx import helper

        yield self.resize(name, "image.map", f"{name}.restored", antialias=True)  # as `restore` does
        yield helper.make_node("Sigmoid", [f"{name}.restored"], [f"{name}.sigmoid"])
        axes = self.constant("map", [0, 1], np.int64)
        yield helper.make_node("Squeeze", [f"{name}.sigmoid", axes], [PROBABILITIES[OUTPUTS.index(name)]])
