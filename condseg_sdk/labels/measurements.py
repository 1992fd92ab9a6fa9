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

PIXEL_COLUMNS = (
    *("image", "uncertainty", "mean_probability", "regions", "area_px", "area_share"),
    *("x0", "y0", "x1", "y1", "largest_area_px", "equivalent_diameter_px", "max_diameter_px"),
)
MM_COLUMNS = ("area_mm2", "largest_area_mm2", "equivalent_diameter_mm", "max_diameter_mm")


def _record(image: LabeledImage, options: LabelOptions) -> Record:
    height, width = image.seg.size
    area = sum(region.area for region in image.regions)
    row: dict[str, object] = {
        "image": image.name.file_name,
        "uncertainty": round(image.uncertainty, 6),
        "mean_probability": None if image.mean_probability is None else round(image.mean_probability, 6),
        "regions": len(image.regions),
        "area_px": area,
        "area_share": round(area / (height * width), 6),
    }
    if image.regions:
        boxes = np.array([region.box for region in image.regions])
        (x0, y0, _, _), (_, _, x1, y1) = boxes.min(0).tolist(), boxes.max(0).tolist()
        row |= {"x0": x0, "y0": y0, "x1": x1, "y1": y1, **_lengths(image.regions[0], (1, 1), "px")}
    if options.spacing is not None:
        pixel = math.prod(options.spacing)
        row["area_mm2"] = round(area * pixel, 4)
        if image.regions:
            row["largest_area_mm2"] = round(image.regions[0].area * pixel, 4)
            row |= _lengths(image.regions[0], options.spacing, "mm")
    return row


def _lengths(region: Region, spacing: tuple[float, float], unit: str) -> dict[str, float]:
    """Measure a region: the diameter of a disk of its area, and the distance of its two farthest points."""
    row, column = spacing
    hull = cv2.convexHull(region.outline)[:, 0] * np.array([column, row])
    farthest = np.sqrt(((hull[:, None] - hull[None]) ** 2).sum(-1).max())
    lengths = {
        f"equivalent_diameter_{unit}": round(math.sqrt(4 * region.area * row * column / math.pi), 3),
        f"max_diameter_{unit}": round(float(farthest), 3),
    }
    return {"largest_area_px": region.area, **lengths} if unit == "px" else lengths


def _finish(records: Iterable[Record], options: LabelOptions) -> list[Write]:
    columns = PIXEL_COLUMNS if options.spacing is None else PIXEL_COLUMNS + MM_COLUMNS
    return [lambda path: write_csv(path, columns, records)]


FORMAT = LabelFormat(
    "csv",
    "measurements.csv for all images",
    record=_record,
    run_files=("measurements.csv",),
    finish=_finish,
    is_sealed=False,
)
