"""The input that a checkpoint expects, and the way back from the network's size to the image's.

An image is cropped to its field of view where the checkpoint requires it, and squashed to the checkpoint's size, at any
aspect ratio, as the paper does in training and evaluation; `resize_logits` undoes both. Images are read in
`images/`, the field of view is found in `field_of_view.py`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.field_of_view import Box, FieldOfView, FloatBox, crop, find_field_of_view
from condseg_sdk.images.bit_depth import check_bits
from condseg_sdk.images.load import ColorOrder
from condseg_sdk.opencv import cv2
from condseg_sdk.options import check_choice

__all__ = ["MAX_SIDE", "OUTSIDE", "Interpolation", "Preprocessing", "resize_logits", "sigmoid"]

Interpolation = Literal["antialias", "linear", "area"]

MAX_SIDE = 2048  # the network's feature maps of a larger image take gigabytes
MIN_NUMBER, MAX_NUMBER = 1e-9, 1e9  # limits of scale, mean and std that keep float32 far from its own limits

OUTSIDE = -math.inf
"""Logit outside of the field of view: a probability of 0."""


@dataclass(frozen=True)
class Preprocessing:
    """The input a checkpoint was trained on: `x = (pixels * scale - mean) / std`, per channel, at one size.

    It is saved with the weights in `config.json`, since a wrong color order or mean loses accuracy without any error.

    Args:
        size: Network input size (height, width) in pixels, at most 2048 each. Images are squashed to it; their aspect
            ratio is not kept.
        color_order: Order of the channels that the network expects, "rgb" or "bgr".
        scale: Factor for the uint8 pixels, applied before mean and std.
        mean: Three numbers, in the network's channel order, in units of scaled pixels.
        std: Three numbers above 0, in the same order and units.
        interpolation: "antialias", bilinear with a wider support where images are made smaller (Pillow's, and
            `torch.nn.functional.interpolate(..., mode="bilinear", antialias=True)`); "linear", OpenCV's
            INTER_LINEAR, which the authors' code uses; or "area", OpenCV's INTER_AREA.
        field_of_view: "endoscopy" first crops the margins, text and small images beside the endoscopic view
            (`find_field_of_view`); cropped parts have a probability of 0. "none" uses the whole image.
        bits: Number of bits in use in the 16-bit images that the checkpoint was trained on; None if there were
            none. Images with 16-bit values are read with this number of bits.

    Raises:
        OptionError: A value has the wrong type or is out of range.

    Example:
        >>> import numpy as np
        >>> preprocessing = Preprocessing(size=(256, 256), scale=1.0, mean=(127,) * 3, std=(128,) * 3)
        >>> preprocessing(np.zeros((480, 640, 3), np.uint8)).shape
        (3, 256, 256)
    """

    size: tuple[int, int]
    _: KW_ONLY
    color_order: ColorOrder = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: Interpolation = "antialias"
    field_of_view: FieldOfView = "none"
    bits: int | None = None

    def __post_init__(self) -> None:
        check_choice("color_order", self.color_order, ColorOrder)
        check_choice("interpolation", self.interpolation, Interpolation)
        check_choice("field_of_view", self.field_of_view, FieldOfView)
        check_bits(self.bits)
        values = {name: reprlib.repr(getattr(self, name)) for name in ("size", "scale", "mean", "std")}
        if not (_are_numbers(self.size, 2, 1, MAX_SIDE) and all(type(side) is int for side in self.size)):
            raise OptionError(
                f"size={values['size']} must be (height, width), two integers from 1 to {MAX_SIDE}", option="size"
            )
        if not _are_numbers([self.scale], 1, MIN_NUMBER, MAX_NUMBER):
            raise OptionError(f"scale={values['scale']} must be a number above 0, such as 1/255", option="scale")
        if not _are_numbers(self.mean, 3, -MAX_NUMBER, MAX_NUMBER):
            raise OptionError(f"mean={values['mean']} must be three numbers, one for each channel", option="mean")
        if not _are_numbers(self.std, 3, MIN_NUMBER, MAX_NUMBER):
            raise OptionError(f"std={values['std']} must be three numbers above 0, one for each channel", option="std")
        for name in ("size", "mean", "std"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn one image into network input: crop to the field of view, resize, normalize.

        Args:
            image: Image, uint8 RGB (H, W, 3).

        Returns:
            Network input, float32 (3, h, w), contiguous.
        """
        return self.normalize(self.resize(crop(image, self.find_field_of_view(image))))

    def find_field_of_view(self, image: NDArray[np.uint8]) -> Box | None:
        """Find the rectangle of an image that the network sees.

        Args:
            image: Image, uint8 RGB (H, W, 3).

        Returns:
            Rectangle x0, y0, x1, y1 in pixels, x1 and y1 exclusive; None for the whole image.
        """
        return find_field_of_view(image) if self.field_of_view == "endoscopy" else None

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image, or its field of view, to `size` without keeping the aspect ratio.

        Args:
            image: Image, uint8 RGB (H, W, 3).

        Returns:
            Image, uint8 RGB (h, w, 3).
        """
        height, width = self.size
        if image.shape[:2] == self.size:
            return image
        if self.interpolation == "antialias":
            return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        flag = cv2.INTER_LINEAR if self.interpolation == "linear" else cv2.INTER_AREA
        return np.asarray(cv2.resize(image, (width, height), interpolation=flag), np.uint8)

    def normalize(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn RGB pixels into network input: channel order, scale, mean and std, channels first.

        Args:
            image: uint8 RGB, one image (h, w, 3) or a batch (B, h, w, 3), usually from `resize`.

        Returns:
            float32, (3, h, w) or (B, 3, h, w), contiguous, channels in `color_order`.
        """
        channels = np.moveaxis(image[..., ::-1] if self.color_order == "bgr" else image, -1, -3)
        # Planes of bytes, then in place: six times faster than on interleaved floats, with identical results.
        pixels = np.ascontiguousarray(channels).astype(np.float32)
        pixels *= np.float32(self.scale)
        pixels -= np.array(self.mean, np.float32)[:, None, None]
        pixels /= np.array(self.std, np.float32)[:, None, None]
        return pixels

    def to_dict(self) -> dict[str, object]:
        """Convert the values to plain JSON types, which `Preprocessing.from_dict` reads.

        "field_of_view" and "bits" are left out where they have no effect, so that older releases can read the rest.
        """
        values = asdict(self)
        if self.field_of_view == "none":
            del values["field_of_view"]
        if self.bits is None:
            del values["bits"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Preprocessing:
        """Read what `to_dict` returned. All keys are required, since a default would be a guess.

        Only "field_of_view" and "bits" may be missing; older releases did not have them.

        Args:
            values: The "preprocessing" part of a checkpoint's config.json.

        Raises:
            CheckpointError: A key is missing or unknown, or a value is not allowed.
        """
        expected = {field.name for field in fields(cls)}
        given: Any = {"field_of_view": "none", "bits": None, **values} if isinstance(values, Mapping) else values
        if not isinstance(given, Mapping) or set(given) != expected:
            shown = reprlib.repr(sorted(map(str, given)) if isinstance(given, Mapping) else given)
            raise CheckpointError(f"preprocessing must have exactly the keys {sorted(expected)}, not {shown}")
        try:
            return cls(**given)
        except OptionError as error:
            raise CheckpointError(f"preprocessing: {error}") from error


def resize_logits(
    logits: NDArray[np.float32], size: tuple[int, int], field_of_view: FloatBox | None = None
) -> NDArray[np.float32]:
    """Resize a map of logits to an image's size.

    Bilinear, with pixel centers at half-integers, and antialiased where the map is made smaller.

    Args:
        logits: Logits, float32 (h, w), finite.
        size: The image's (height, width) in pixels.
        field_of_view: Rectangle x0, y0, x1, y1 of the image that the map covers, in pixels or fractions of them.
            Default: the whole image.

    Returns:
        float32 (height, width), in the range of `logits`, and `OUTSIDE` for pixels whose centers are outside of the
        field of view. If nothing has to be done, it is `logits` itself.

    Example:
        >>> import numpy as np
        >>> resize_logits(np.float32([[0, 4]]), (1, 4)).tolist()
        [[0.0, 1.0, 3.0, 4.0]]
        >>> resize_logits(np.float32([[0, 4]]), (1, 6), (1, 0, 5, 1)).tolist()
        [[-inf, 0.0, 1.0, 3.0, 4.0, -inf]]
    """
    if field_of_view is None:
        return _resize(logits, size)
    x0, y0, x1, y1 = field_of_view
    left, top, right, bottom = (math.ceil(edge - 0.5) for edge in field_of_view)
    result = np.full(size, OUTSIDE, np.float32)
    if right > left and bottom > top:
        inner = (bottom - top, right - left)
        if (left, top, right, bottom) == (x0, y0, x1, y1):
            result[top:bottom, left:right] = _resize(logits, inner)
        else:
            height, width = logits.shape
            across, down = width / (x1 - x0), height / (y1 - y0)  # size of a pixel in the map
            pad = math.ceil(max(across, down))  # the outermost pixels may reach beyond the map
            source = (
                (left - x0) * across + pad,
                (top - y0) * down + pad,
                (right - x0) * across + pad,
                (bottom - y0) * down + pad,
            )
            padded = Image.fromarray(np.pad(logits, pad, mode="edge"))
            result[top:bottom, left:right] = np.asarray(
                padded.resize(inner[::-1], Image.Resampling.BILINEAR, box=source)
            )
    return result


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the probabilities of logits, float32 of any shape.

    Example:
        >>> sigmoid(np.float32([-np.inf, 0, 100])).tolist()
        [0.0, 0.5, 1.0]
    """
    with np.errstate(over="ignore"):  # exp(-logit) may be infinite: the probability is then 0
        return np.reciprocal(1 + np.exp(-logits), dtype=np.float32)


def _resize(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    height, width = size
    if logits.shape == size:
        return logits
    if height >= logits.shape[0] and width >= logits.shape[1]:
        # Nothing to antialias: OpenCV gives the same result as Pillow, 20 times faster.
        return np.asarray(cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.array(Image.fromarray(logits).resize((width, height), Image.Resampling.BILINEAR))


def _are_numbers(values: object, count: int, least: float, greatest: float) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == count
        and all(type(value) in (int, float) and least <= value <= greatest for value in values)
    )
