"""Turns the decoded values of a DICOM frame into the RGB image that a viewer shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["bytes_per_pixel", "to_rgb"]

_GRAY = ("MONOCHROME1", "MONOCHROME2")
_FAR = 1e12  # beyond any window


def to_rgb(values: NDArray[Any], photometric: str, attributes: Dataset, name: str) -> NDArray[np.uint8]:
    """Convert a decoded frame to RGB.

    Args:
        values: Decoded frame, (H, W) or (H, W, 3); YBR colors are already RGB.
        photometric: Photometric interpretation of `values`.
        attributes: Attributes of the frame.
        name: Name of the file for messages.

    Returns:
        Image, RGB uint8 (H, W, 3), contiguous.

    Raises:
        ImageError: The kind of image is not supported.
    """
    if photometric in _GRAY and values.ndim == 2:
        gray = _gray(values, attributes, name)
        inverse = photometric == "MONOCHROME1" or attributes.get("PresentationLUTShape") == "INVERSE"
        shown = 255 - gray if inverse else gray
        padding = _padding(values, attributes)
        if padding is not None:
            shown[padding] = 0
        return np.repeat(shown[..., None], 3, axis=2)
    if photometric == "PALETTE COLOR" and values.ndim == 2:
        return _palette(values, attributes)
    if photometric in ("RGB", "YBR_ICT", "YBR_RCT") and values.ndim == 3 and values.shape[2] == 3:
        if values.dtype.kind != "u":
            raise ImageError(f"{name} has signed colors, which are not supported; convert it to 8-bit RGB")
        white = 2 ** int(attributes.BitsStored) - 1 if values.dtype.itemsize > 1 else 255
        return np.ascontiguousarray(_scale(values, 0, white))
    samples = values.shape[2] if values.ndim == 3 else 1
    kind = f"{photometric} with {samples} samples per pixel"
    raise ImageError(f"{name} is {kind}, which is not supported; convert it to RGB or MONOCHROME2")


def bytes_per_pixel(attributes: Dataset, *, is_encapsulated: bool) -> int:
    """Estimate how many bytes of memory a pixel needs while it is decoded and converted.

    Args:
        attributes: Attributes of the image.
        is_encapsulated: Whether its frames are compressed.
    """
    samples = int(attributes.get("SamplesPerPixel") or 1)
    stored = samples * max(int(attributes.BitsAllocated), 8) // 8
    decoded = stored * (4 if is_encapsulated else 3)
    photometric = attributes.get("PhotometricInterpretation")
    if photometric in _GRAY:
        is_plain = stored == 1 and "WindowWidth" not in attributes and "RescaleSlope" not in attributes
        return decoded + (4 if is_plain else 32)  # several arrays of float64
    return decoded + (6 if photometric == "RGB" and stored == 3 else 24)


def _gray(values: NDArray[Any], attributes: Dataset, name: str) -> NDArray[np.uint8]:
    """Apply the rescale and the first window, or the range of the stored values."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    rescaled = apply_modality_lut(values, attributes)
    if not _has_table(attributes) and not _has_window(attributes):
        return _scale(rescaled, *_stored_range(values, rescaled, attributes, name))
    if not _has_window(attributes):
        for keyword in ("WindowCenter", "WindowWidth"):
            attributes.pop(keyword, None)
    shown = apply_voi_lut(rescaled, attributes)
    return _scale(shown, *_shown_range(attributes))


def _has_table(attributes: Dataset) -> bool:
    return bool(attributes.get("VOILUTSequence"))


def _has_window(attributes: Dataset) -> bool:
    """Return whether there is a usable window: in some files it is empty or has a width of 0."""
    try:
        center, width = (float(_first(attributes.get(keyword))) for keyword in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError, IndexError):
        return False
    is_linear = str(attributes.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    return math.isfinite(center) and math.isfinite(width) and (width >= 1 if is_linear else width > 0)


def _first(value: Any) -> Any:
    """Return the first of several values, or the only one."""
    from pydicom.multival import MultiValue

    return value[0] if isinstance(value, MultiValue) else value


def _shown_range(attributes: Dataset) -> tuple[float, float]:
    """Return the values that the window or table turns black and white."""
    from pydicom.pixels.processing import apply_windowing

    if _has_table(attributes):
        return 0, 2 ** int(attributes.VOILUTSequence[0].LUTDescriptor[2]) - 1
    with np.errstate(over="ignore"):  # of the exponential function of a sigmoid window
        black, white = apply_windowing(np.array([-_FAR, _FAR]), attributes)
    return float(black), float(white)


def _stored_range(values: NDArray[Any], rescaled: NDArray[Any], attributes: Dataset, name: str) -> tuple[float, float]:
    """Return the values shown as black and as white in an image without a window.

    Up to 8 bits are shown as they are stored, as the standard requires. Images with more bits mostly use a small part
    of the range and are shown from their smallest to their largest value, as in viewers.
    """
    bits = int(attributes.get("BitsStored") or 16)
    if values.dtype.kind == "u" and bits <= 8 and not attributes.get("ModalityLUTSequence"):
        slope, intercept = (float(attributes.get(f"Rescale{part}") or 0) for part in ("Slope", "Intercept"))
        low, high = sorted((intercept, (2**bits - 1) * (slope or 1) + intercept))
        return low, high
    padding = _padding(values, attributes)
    shown = rescaled if padding is None or padding.all() else rescaled[~padding]
    low, high = float(shown.min()), float(shown.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError(f"{name} contains NaN or infinite values; export it again")
    return low, high


def _padding(values: NDArray[Any], attributes: Dataset) -> NDArray[np.bool_] | None:
    """Return the pixels that are not part of the image, such as the corners around a round one."""
    edges = [attributes.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    numbers = [edge for edge in edges if isinstance(edge, int)]
    if not isinstance(edges[0], int):
        return None
    low, high = min(numbers), max(numbers)
    return (values >= low) & (values <= high)


def _palette(values: NDArray[Any], attributes: Dataset) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    colors = apply_color_lut(values, attributes)[..., :3]
    white = 255 if colors.dtype.itemsize == 1 else 65535
    return np.ascontiguousarray(_scale(colors, 0, white))


def _scale(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Scale values so that `black` becomes 0 and `white` 255."""
    if values.dtype == np.uint8 and (black, white) == (0, 255):
        return values.copy()
    if black == white:
        return np.zeros(values.shape, np.uint8)
    scaled = values.astype(np.float64)
    scaled -= black
    scaled *= 255 / (white - black)
    return np.rint(scaled, out=scaled).clip(0, 255).astype(np.uint8)
