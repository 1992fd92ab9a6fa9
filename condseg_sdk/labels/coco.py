"""COCO JSON (instances): one file, a polygon for each region, images from the most uncertain to the least.

Each annotation is one polygon, since VIA reads only the first one of several, and Label Studio reads no run lengths;
holes are cut out of it (`polygons.py`). It has a score, which Label Studio's converter requires.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from condseg_sdk.labels.base import LabeledImage, LabelFormat, LabelOptions, Record, Write
from condseg_sdk.labels.polygons import one_polygon
from condseg_sdk.provenance import write_sealed_json

__all__ = ["FORMAT"]


def _record(image: LabeledImage, _options: LabelOptions) -> Record:
    height, width = image.seg.size
    entry = {
        "file_name": image.name.file_name,
        "height": height,
        "width": width,
        "uncertainty": round(image.uncertainty, 6),
    }
    annotations = []
    for region, score in zip(image.regions, image.region_scores, strict=True):
        x0, y0, x1, y1 = region.box
        annotations.append(
            {
                "category_id": 1,
                "segmentation": [one_polygon(region).ravel().tolist()],
                "area": region.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
                "score": round(score, 6),
            }
        )
    return {"image": entry, "annotations": annotations, "statement": image.seg.statement()}


def _finish(records: Iterable[Record], options: LabelOptions) -> list[Write]:
    def write(path: Path) -> None:
        year, date = datetime.now(UTC).year, datetime.now(UTC).isoformat(timespec="seconds")
        write_sealed_json(
            path,
            {
                "annotations": _annotations(records),
                "categories": iter([{"id": 1, "name": options.label, "supercategory": ""}]),
                "images": ({"id": number, **record["image"]} for number, record in enumerate(records, 1)),
                "info": {
                    "date_created": date,
                    "description": "Predictions of condseg_sdk",
                    "year": year,
                    **next(iter(records))["statement"],
                },
                "licenses": [],
            },
        )

    return [write]


def _annotations(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, record in enumerate(records, 1):
        for annotation in record["annotations"]:
            number += 1
            yield {"id": number, "image_id": image, **annotation}


FORMAT = LabelFormat(
    "coco",
    "coco.json for all images, with polygons",
    record=_record,
    run_files=("coco.json",),
    finish=_finish,
)
