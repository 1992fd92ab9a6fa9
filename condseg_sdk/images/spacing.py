"""The distance between the pixels of an image, if its file contains it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

__all__ = ["PixelSpacing", "SpacingKind", "resize_spacing", "spacing_in"]

SpacingKind: TypeAlias = Literal["patient", "detector", "scanned", "ultrasound"]
"""What a spacing was measured on:

- "patient": in the patient (DICOM's PixelSpacing).
- "detector": on the detector of a projection, where the anatomy appears larger than it is (ImagerPixelSpacing).
- "scanned": on a film or a document that was scanned (NominalScannedPixelSpacing).
- "ultrasound": in a calibrated region of an ultrasound image.
"""


@dataclass(frozen=True)
class PixelSpacing:
    """The distance between the pixels of an image or of a part of it.

    Args:
        row: Distance between the centers of two rows in millimeters.
        column: Distance between the centers of two columns in millimeters.
        kind: What the distance was measured on.
        box: The part x0, y0, x1, y1 in pixels that it is valid for, x1 and y1 exclusive; None for the whole image.

    Example:
        >>> PixelSpacing(0.5, 0.25, "patient").area
        0.125
    """

    row: float
    column: float
    kind: SpacingKind
    box: tuple[float, float, float, float] | None = None

    @property
    def area(self) -> float:
        """Area of a pixel in square millimeters."""
        return self.row * self.column


def spacing_in(spacings: tuple[PixelSpacing, ...], box: tuple[float, float, float, float]) -> PixelSpacing | None:
    """Return the spacing that is valid for all pixels of a box.

    Args:
        spacings: Spacings of an image.
        box: Box x0, y0, x1, y1 in pixels, x1 and y1 exclusive.

    Returns:
        The spacing, or None if no single one is valid: the box is not inside of a calibrated region, or it touches
        another region with another spacing.

    Example:
        >>> left = PixelSpacing(0.1, 0.1, "ultrasound", (0, 0, 50, 100))
        >>> spacing_in((left,), (10, 10, 20, 20)) == left, spacing_in((left,), (40, 10, 60, 20))
        (True, None)
    """
    touching = [spacing for spacing in spacings if spacing.box is None or _overlap(spacing.box, box)]
    if len({(spacing.row, spacing.column) for spacing in touching}) != 1:
        return None
    return next((spacing for spacing in touching if spacing.box is None or _contains(spacing.box, box)), None)


def resize_spacing(spacing: PixelSpacing, size: tuple[int, int], new_size: tuple[int, int]) -> PixelSpacing:
    """Return the spacing of an image that was resized from (height, width) `size` to `new_size`.

    Example:
        >>> resize_spacing(PixelSpacing(0.5, 0.5, "patient"), (100, 100), (50, 200))
        PixelSpacing(row=1.0, column=0.25, kind='patient', box=None)
    """
    y, x = new_size[0] / size[0], new_size[1] / size[1]
    box = spacing.box and (spacing.box[0] * x, spacing.box[1] * y, spacing.box[2] * x, spacing.box[3] * y)
    return replace(spacing, row=spacing.row / y, column=spacing.column / x, box=box)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _contains(outer: tuple[float, float, float, float], inner: tuple[float, float, float, float]) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]
