"""Preprocessing as part of a graph, so that programs in other languages need only ONNX Runtime.

The graph takes an image of any size and returns the probability of each pixel. The arithmetic is the same as in
`Preprocessing` and `resize_logits`, except for the rounding between Pillow's two passes of a resize. No ONNX operator
finds a field of view: the program gives it as a second input, and the graph crops the image to it and sets
probabilities outside to 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from condseg_sdk.errors import OptionError
from condseg_sdk.export.trace import IMAGES, OUTPUTS
from condseg_sdk.preprocessing import Preprocessing

__all__ = ["BOX", "BOX_HELP", "BOX_KEY", "IMAGE", "PROBABILITIES", "add_preprocessing", "whole_image"]

IMAGE, PROBABILITIES = "image", ("probability", "branch_uncertainty_probability")
BOX = "field_of_view"
BOX_KEY = "condseg_field_of_view"
BOX_HELP = (
    "int64 (4): x0, y0, x1, y1 in pixels, x1 and y1 exclusive, of the rectangle of the image that the network is to "
    "see; outside of it every probability is 0. This network needs the rectangle of the endoscopic view, without "
    "margins, text and small images beside it: find it once for each recorder, for instance with "
    "condseg_sdk.field_of_view.find_field_of_view. 0, 0, width, height is the whole image."
)


def add_preprocessing(model: Any, preprocessing: Preprocessing) -> None:
    """Put resizing, color order and normalization before a model for one image, and resizing and a sigmoid after it.

    Args:
        model: An onnx.ModelProto from `trace`, not dynamic, in any precision; changed in place. Its input becomes
            "image", uint8 RGB (height, width, 3), its outputs "probability" and, where it has one,
            "branch_uncertainty_probability", float32 (height, width) in [0, 1], both sizes dynamic. Where the
            preprocessing looks for a field of view there is a second input, "field_of_view", which `BOX_HELP` explains;
            `export_onnx` also writes the explanation into the metadata.
        preprocessing: Preprocessing of the checkpoint.

    Raises:
        OptionError: The interpolation is OpenCV's INTER_AREA, for which there is no ONNX operator.
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
    if parts.cuts:
        model.graph.input.append(helper.make_tensor_value_info(BOX, TensorProto.INT64, [4], BOX_HELP))
    for name in outputs:
        result = PROBABILITIES[OUTPUTS.index(name)]
        model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, ["height", "width"]))


class _Parts:
    """The nodes and the constants that they use."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.cuts = preprocessing.field_of_view != "none"
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        name = f"preprocessing.{name}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def resize(self, source: str, size: str, result: str, *, antialias: bool) -> Any:
        from onnx import helper

        # As in Pillow, pixels outside the image do not count; by default ONNX repeats the pixels of the border.
        smooth: dict[str, Any] = {"antialias": 1, "exclude_outside": 1} if antialias else {}
        return helper.make_node(
            "Resize", [source, "", "", size], [result], mode="linear", **smooth, name=f"resize_{source}"
        )

    def before(self) -> Iterator[Any]:
        from onnx import TensorProto, helper

        p = self.preprocessing
        size = self.constant("size", (1, 3, *p.size), np.int64)
        image = IMAGE
        if self.cuts:
            # Columns and rows of two opposite corners.
            axes, half = self.constant("axes", [1, 0], np.int64), self.constant("half", [2, 2], np.int64)
            yield helper.make_node("Split", [BOX, half], ["box.start", "box.end"])
            image = "image.inside"
            yield helper.make_node("Slice", [IMAGE, "box.start", "box.end", axes], [image])
        yield helper.make_node("Cast", [image], ["image.float"], to=TensorProto.FLOAT)
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
        yield helper.make_node("Sub", ["image.scaled", self.constant("mean", mean)], ["image.centered"])
        yield helper.make_node("Div", ["image.centered", self.constant("std", std)], [IMAGES])
        # Size of the probabilities: (1, 1, height, width).
        yield helper.make_node("Shape", [image], ["image.size"], start=0, end=2)
        one = self.constant("one", [1, 1], np.int64)
        yield helper.make_node("Concat", [one, "image.size"], ["image.map"], axis=0)
        if self.cuts:
            # Order of Pad: top, left, bottom, right.
            yield helper.make_node("Shape", [IMAGE], ["image.all"], start=0, end=2)
            turned = self.constant("turned", [1, 0], np.int64)
            yield helper.make_node("Gather", ["box.start", turned], ["box.before"])
            yield helper.make_node("Add", ["box.before", "image.size"], ["box.inner_end"])
            yield helper.make_node("Sub", ["image.all", "box.inner_end"], ["box.after"])
            yield helper.make_node("Concat", ["box.before", "box.after"], ["box.pads"], axis=0)

    def after(self, name: str) -> Iterator[Any]:
        from onnx import helper

        yield self.resize(name, "image.map", f"{name}.restored", antialias=True)  # as `resize_logits` does
        yield helper.make_node("Sigmoid", [f"{name}.restored"], [f"{name}.sigmoid"])
        axes = self.constant("map", [0, 1], np.int64)
        result = PROBABILITIES[OUTPUTS.index(name)]
        inside = f"{name}.inside" if self.cuts else result
        yield helper.make_node("Squeeze", [f"{name}.sigmoid", axes], [inside])
        if self.cuts:
            yield helper.make_node("Pad", [inside, "box.pads"], [result])


def whole_image(size: tuple[int, int]) -> list[int]:
    """Return the field of view that covers an image of (height, width)."""
    return [0, 0, size[1], size[0]]
