"""A CSV table of measurements: one row for each image, from the most uncertain to the least."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from condseg_sdk.files import write_csv
from condseg_sdk.labels.base import LabeledImage, LabelFormat, LabelOptions, Record, Write
from condseg_sdk.opencv import cv2
from condseg_sdk.segmentation import Region

__all__ = ["FORMAT"]

COLUMNS = (
    *("image", "frame", "time", "uncertainty", "score", "mean_probability", "regions", "area_px", "area_share"),
    *("x0", "y0", "x1", "y1", "largest_area_px", "equivalent_diameter_px", "max_diameter_px"),
    *("area_mm2", "largest_area_mm2", "equivalent_diameter_mm", "max_diameter_mm"),
)
"""Frame and time are empty for images that are no frames, millimeters where the distance between pixels is unknown."""


def _record(image: LabeledImage, options: LabelOptions) -> Record:
    height, width = image.seg.size
    area = sum(region.area for region in image.regions)
    row: dict[str, object] = {
        "image": image.name.file_name,
        "frame": image.seg.frame,
        "time": None if image.seg.time is None else round(image.seg.time, 6),
        "uncertainty": round(image.uncertainty, 6),
        "score": round(image.seg.score, 6),
        "mean_probability": None if image.mean_probability is None else round(image.mean_probability, 6),
        "regions": len(image.regions),
        "area_px": area,
        "area_share": round(area / (height * width), 6),
    }
    if not image.regions:
        return row
    boxes = np.array([region.box for region in image.regions])
    (x0, y0, _, _), (_, _, x1, y1) = boxes.min(0).tolist(), boxes.max(0).tolist()
    largest = image.regions[0]
    row |= {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "largest_area_px": largest.area}
    row |= _diameters(largest, (1, 1), "px")
    spacings = [_spacing(region, options) for region in image.regions]
    if spacings[0] is not None:
        row["largest_area_mm2"] = round(largest.area * math.prod(spacings[0]), 4)
        row |= _diameters(largest, spacings[0], "mm")
    if None not in spacings:
        areas = [r.area * math.prod(s) for r, s in zip(image.regions, spacings, strict=True) if s is not None]
        row["area_mm2"] = round(math.fsum(areas), 4)
    return row


def _spacing(region: Region, options: LabelOptions) -> tuple[float, float] | None:
    if options.spacing is not None or region.spacing is None:
        return options.spacing
    return region.spacing.row, region.spacing.column


def _diameters(region: Region, spacing: tuple[float, float], unit: str) -> dict[str, float]:
    """Measure a region: the diameter of a disk of equal area, and the distance between its two farthest points."""
    row, column = spacing
    hull = cv2.convexHull(region.outline)[:, 0] * np.array([column, row])
    farthest = np.sqrt(((hull[:, None] - hull[None]) ** 2).sum(-1).max())
    return {
        f"equivalent_diameter_{unit}": round(math.sqrt(4 * region.area * row * column / math.pi), 3),
        f"max_diameter_{unit}": round(float(farthest), 3),
    }


def _finish(records: Iterable[Record], _options: LabelOptions) -> list[Write]:
    return [lambda path: write_csv(path, COLUMNS, records)]


FORMAT = LabelFormat(
    "csv",
    "measurements.csv for all images",
    record=_record,
    run_files=("measurements.csv",),
    finish=_finish,
    is_sealed=False,
)
