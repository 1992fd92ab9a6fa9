"""Types of the public signatures: what the package accepts as images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch

    from condseg_sdk.images.dicom import DicomFrame

__all__ = ["ColorOrder", "ImageLike", "Sources"]

ColorOrder = Literal["rgb", "bgr"]

ImageLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[np.generic]"
    " | torch.Tensor | DicomFrame"
)
"""One image: a path, the bytes of a file, a binary file object, a PIL image, a NumPy array (H, W[, C]), a tensor, or a
frame of a DICOM file."""

Sources: TypeAlias = "ImageLike | Sequence[ImageLike]"
"""One or many images: an `ImageLike`, a folder, a glob pattern, or a list or tuple of these."""
