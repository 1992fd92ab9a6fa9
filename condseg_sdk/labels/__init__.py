"""Writes predictions as label files for annotation tools. One module for each format, and one entry in `FORMATS`."""

from condseg_sdk.labels import coco, contact_sheet, geojson, label_png, labelme, measurements, yolo
from condseg_sdk.labels.base import LabelFormat

__all__ = ["FORMATS"]

FORMATS: dict[str, LabelFormat] = {
    module.FORMAT.name: module.FORMAT
    for module in (coco, labelme, yolo, geojson, label_png, measurements, contact_sheet)
}
"""The formats by their names."""
