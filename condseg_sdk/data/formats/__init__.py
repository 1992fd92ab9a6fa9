"""The formats of annotation files: one module each, and one entry in `FORMATS`."""

from condseg_sdk.data.formats import coco, cvat, geojson, labelme, via, yolo
from condseg_sdk.data.formats.base import DatasetFormat

__all__ = ["ANNOTATION_SUFFIXES", "FORMATS", "FORMAT_NAMES"]

FORMATS: tuple[DatasetFormat, ...] = (
    coco.FORMAT,
    labelme.FORMAT,
    via.FORMAT,
    yolo.FORMAT,
    cvat.FORMAT,
    geojson.FORMAT,
)
"""The formats, in the order in which a file is compared with them."""

ANNOTATION_SUFFIXES = tuple(dict.fromkeys(suffix for form in FORMATS for suffix in form.suffixes))
FORMAT_NAMES = f"{', '.join(form.name for form in FORMATS[:-1])} or {FORMATS[-1].name}"
