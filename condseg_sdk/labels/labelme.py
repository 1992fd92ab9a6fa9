"""LabelMe JSON, which AnyLabeling reads as well: one file for each image, a polygon for each region."""

from __future__ import annotations

import json
import os
from pathlib import Path

from condseg_sdk.labels.base import ImageName, LabeledImage, LabelFormat, LabelOptions
from condseg_sdk.labels.polygons import one_polygon
from condseg_sdk.provenance import seal_json

__all__ = ["FORMAT"]

VERSION = "5.5.0"  # of LabelMe; it warns about files of another major version


def _image_files(name: ImageName) -> list[str]:
    return [f"labelme/{name.stem}.json"]


def _encode(image: LabeledImage, options: LabelOptions) -> list[bytes]:
    height, width = image.seg.size
    shapes = [
        {
            "label": options.label,
            "points": one_polygon(region).astype(float).tolist(),
            "group_id": None,
            "description": f"mean probability {score:.3f}",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for region, score in zip(image.regions, image.region_scores, strict=True)
    ]
    content: dict[str, object] = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": _image_path(image, options.folder / _image_files(image.name)[0]),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        "uncertainty": round(image.uncertainty, 6),
        "condseg_sdk": image.seg.statement(),
    }
    return [(json.dumps(seal_json(content), indent=2) + "\n").encode()]


def _image_path(image: LabeledImage, file: Path) -> str:
    """Return the path from the file to its image, where LabelMe looks for it."""
    if image.path is None:
        return image.name.file_name
    try:
        return Path(os.path.relpath(image.path, file.parent)).as_posix()
    except ValueError:  # on another drive
        return image.path.absolute().as_posix()


FORMAT = LabelFormat("labelme", "labelme/*.json, with polygons", _image_files, _encode)
