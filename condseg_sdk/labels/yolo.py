"""YOLO segmentation: a folder with data.yaml, copies of the images, and a text file of polygons for each.

The images are copied because every reader of the format looks for the labels beside them, in labels/ instead of
images/.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import PurePosixPath

from PIL import Image

from condseg_sdk.errors import ImageError
from condseg_sdk.images.load import load_image
from condseg_sdk.labels.base import ImageName, LabeledImage, LabelFormat, LabelOptions, Record, Write
from condseg_sdk.labels.polygons import one_polygon

__all__ = ["FORMAT"]

READABLE = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes of images that Ultralytics reads; others become PNG files."""


def _image_files(name: ImageName) -> list[str]:
    suffix = PurePosixPath(name.file_name).suffix
    suffix = suffix if suffix.lower() in READABLE else ".png"
    return [f"yolo/images/{name.stem}{suffix}", f"yolo/labels/{name.stem}.txt"]


def _encode(image: LabeledImage, _options: LabelOptions) -> list[bytes]:
    height, width = image.seg.size
    lines = []
    for region in image.regions:
        # Seven digits place a corner to a hundredth of a pixel in the largest image, and back in the same pixel.
        corners = [f"{x / width:.7g} {y / height:.7g}" for x, y in one_polygon(region).tolist()]
        lines.append(f"0 {' '.join(corners)}\n")
    return [_image(image), "".join(lines).encode()]


def _image(image: LabeledImage) -> bytes:
    if image.path is not None and image.path.suffix.lower() in READABLE:
        try:
            return image.path.read_bytes()
        except OSError as error:
            raise ImageError(f"{image.path} can no longer be read ({error.strerror}); segment it again") from error
    pixels = load_image(image.seg.source, color_order=image.seg.color_order, bits=image.seg.bits)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _finish(_records: Iterable[Record], options: LabelOptions) -> list[Write]:
    # Ultralytics requires the key "val" and this package holds images out by itself, so it names none.
    import yaml  # not at the top: every prediction loads this module

    text = "path: .\ntrain: images\nval:\n" + yaml.safe_dump({"names": {0: options.label}}, allow_unicode=True)
    return [lambda path: path.write_text(text, encoding="utf-8")]


FORMAT = LabelFormat(
    "yolo",
    "yolo/ with data.yaml, images/ and labels/",
    _image_files,
    _encode,
    run_files=("yolo/data.yaml",),
    finish=_finish,
    is_sealed=False,
)
