"""Label images: one indexed PNG for each image, in which 0 is the background and 1 is the class, shown in color."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from condseg_sdk.labels.base import ImageName, LabeledImage, LabelFormat, LabelOptions
from condseg_sdk.provenance import seal_png

__all__ = ["FORMAT"]

PALETTE = (0, 0, 0, 64, 224, 208)  # red, green, blue of index 0 and of index 1


def _image_files(name: ImageName) -> list[str]:
    return [f"label_png/{name.stem}.png"]


def _encode(image: LabeledImage, _options: LabelOptions) -> list[bytes]:
    drawn = Image.fromarray(image.mask.astype(np.uint8)).convert("P")
    drawn.putpalette(PALETTE)
    file = io.BytesIO()
    text = PngInfo()
    text.add_text("condseg_sdk", json.dumps(image.seg.statement()))
    drawn.save(file, format="PNG", optimize=True, pnginfo=text)
    return [seal_png(file.getvalue())]


FORMAT = LabelFormat("label-png", "label_png/*.png, with the index of the class", _image_files, _encode)
