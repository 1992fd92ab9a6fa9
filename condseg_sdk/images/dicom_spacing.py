"""Reads the spacing of the pixels from the attributes of a DICOM image; a missing spacing is not guessed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from condseg_sdk.images.spacing import PixelSpacing, SpacingKind

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["read_spacing"]

_CENTIMETERS = 3  # code of the unit in a region of an ultrasound image


def read_spacing(attributes: Dataset, size: tuple[int, int]) -> tuple[PixelSpacing, ...]:
    """Read the spacing of an image.

    Args:
        attributes: Attributes of the image, with the attributes of its functional groups at the top level.
        size: (height, width) of the image. A region that reaches beyond it belongs to an image that was resized or
            cropped since, and its spacing is no longer valid.

    Returns:
        The calibrated regions of an ultrasound image, otherwise one spacing for the whole image: PixelSpacing,
        ImagerPixelSpacing or NominalScannedPixelSpacing, whichever is present first. Empty where none is valid.
    """
    regions = attributes.get("SequenceOfUltrasoundRegions") or []
    calibrated = tuple(filter(None, (_read_region(region, size) for region in regions)))
    if calibrated:
        return calibrated
    imager = _pair(attributes.get("ImagerPixelSpacing"))
    spacing = _pair(attributes.get("PixelSpacing"))
    if spacing is not None:
        # The standard: a PixelSpacing that equals ImagerPixelSpacing was not corrected for the magnification.
        is_corrected = spacing != imager or attributes.get("PixelSpacingCalibrationType")
        return _whole(spacing, "patient" if is_corrected else "detector")
    if imager is not None:
        return _whole(imager, "detector")
    scanned = _pair(attributes.get("NominalScannedPixelSpacing"))
    return () if scanned is None else _whole(scanned, "scanned")


def _whole(pair: tuple[float, float], kind: SpacingKind) -> tuple[PixelSpacing]:
    return (PixelSpacing(*pair, kind),)


def _pair(value: Any) -> tuple[float, float] | None:
    """Return the distances between rows and between columns, if they are two numbers above 0."""
    try:
        row, column = (float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return (row, column) if 0 < row < math.inf and 0 < column < math.inf else None


def _read_region(region: Dataset, size: tuple[int, int]) -> PixelSpacing | None:
    """Return the spacing of a region whose axes are both in centimeters, as in an image of tissue."""
    if not region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETERS:
        return None
    corners = [region.get(f"RegionLocation{corner}") for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    # An axis that points to the left or upwards has a negative step.
    pair = _pair([abs(10 * (region.get(f"PhysicalDelta{axis}") or 0)) for axis in "YX"])
    if pair is None or not all(isinstance(corner, int) for corner in corners):
        return None
    (x0, y0, x1, y1), (height, width) = corners, size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        return None
    # The last row and column belong to the region; some devices write the image's width and height for them.
    return PixelSpacing(*pair, "ultrasound", (x0, y0, min(x1 + 1, width), min(y1 + 1, height)))
