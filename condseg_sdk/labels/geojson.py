"""GeoJSON in pixels, as QuPath reads it: one file for each image, a feature for each region, with real holes."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.labels.base import ImageName, LabeledImage, LabelFormat, LabelOptions
from condseg_sdk.labels.polygons import simple_polygons
from condseg_sdk.opencv import cv2
from condseg_sdk.provenance import seal_json
from condseg_sdk.segmentation import Region

__all__ = ["FORMAT"]


def _image_files(name: ImageName) -> list[str]:
    return [f"geojson/{name.stem}.geojson"]


def _encode(image: LabeledImage, options: LabelOptions) -> list[bytes]:
    height, width = image.seg.size
    features = [
        {
            "type": "Feature",
            "geometry": _geometry(region),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": options.label},
                "area": region.area,
                "score": round(score, 6),
            },
        }
        for region, score in zip(image.regions, image.region_scores, strict=True)
    ]
    content = {
        "type": "FeatureCollection",
        "features": features,
        "image": image.name.file_name,
        "height": height,
        "width": width,
        "uncertainty": round(image.uncertainty, 6),
        "condseg_sdk": image.seg.statement(),
    }
    return [(json.dumps(seal_json(content)) + "\n").encode()]


def _geometry(region: Region) -> dict[str, object]:
    polygons = [
        [_closed(ring, is_hole=number > 0) for number, ring in enumerate(rings)] for rings in simple_polygons(region)
    ]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: NDArray[np.int32], *, is_hole: bool) -> list[list[int]]:
    """Return a ring as RFC 7946 requires: the first corner again at the end; outlines turn left, holes right."""
    turns_left = cv2.contourArea(ring, oriented=True) > 0
    ordered = ring if turns_left != is_hole else ring[::-1]
    return [*ordered.tolist(), ordered[0].tolist()]


FORMAT = LabelFormat("geojson", "geojson/*.geojson, for QuPath", _image_files, _encode)
