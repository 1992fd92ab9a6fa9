"""The interface of a label format, and the values of a prediction that a format can use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.opencv import cv2
from condseg_sdk.segmentation import Region, Segmentation, find_regions

__all__ = ["ImageName", "LabelFormat", "LabelOptions", "LabeledImage", "Record", "Write"]

Record: TypeAlias = Mapping[str, Any]
"""What the files of a whole run need to know about one image."""

Write: TypeAlias = Callable[[Path], object]
"""Writes a file to the path that it is called with."""


@dataclass(frozen=True)
class ImageName:
    """How an image is named in label files.

    Attributes:
        file_name: Path of the image below the folder of images, with "/" between folders: "patient1/frame.jpg".
        stem: Beginning of the paths of the image's own files below the output folder: "patient1/frame".
    """

    file_name: str
    stem: str


@dataclass(frozen=True)
class LabelOptions:
    """Options of all formats.

    Attributes:
        label: Name of the class of every region.
        folder: Folder to write to.
        spacing: Distance between rows and between columns in millimeters; None to use the one in each image's file.
    """

    label: str
    folder: Path
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True)
class LabeledImage:
    """A prediction and its name; values that several formats need are computed once.

    Attributes:
        seg: Prediction.
        name: Name of the image.
    """

    seg: Segmentation
    name: ImageName

    @property
    def path(self) -> Path | None:
        """Path of the image; None for an array, a frame of a video and the like."""
        source = self.seg.source
        return Path(source) if isinstance(source, (str, os.PathLike)) else None

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Mask, bool (H, W)."""
        return self.seg.mask

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Probability of each pixel, float32 (H, W) in [0, 1]."""
        return self.seg.probability

    @cached_property
    def regions(self) -> list[Region]:
        """Connected regions of the mask, largest first."""
        return find_regions(self.mask, self.seg.spacing)

    @cached_property
    def region_scores(self) -> list[float]:
        """Mean probability of the pixels of each region, in [0, 1]."""
        count, numbers = cv2.connectedComponents(self.mask.astype(np.uint8), connectivity=8)
        sums = np.bincount(numbers.ravel(), self.probability.ravel(), count)
        scores = []
        for region in self.regions:
            x, y = min(region.outline.tolist(), key=lambda corner: corner[::-1])  # of the region's first pixel
            scores.append(float(sums[numbers[y, x]]) / region.area)
        return scores

    @cached_property
    def mean_probability(self) -> float | None:
        """Mean probability of the mask's pixels; None where the mask is empty."""
        return float(self.probability[self.mask].mean()) if self.regions else None

    @cached_property
    def uncertainty(self) -> float:
        """Number in [0, 1] by which images are ordered; see `Segmentation.uncertainty_score`."""
        return self.seg.uncertainty_score


@dataclass(frozen=True)
class LabelFormat:
    """A format of labels. A new format is a module with a `FORMAT`, registered in `labels/__init__.py`.

    Attributes:
        name: Name of the format, as `save_labels` and `condseg predict --save` take it.
        summary: Description of the files, for the help text of the command line.
        image_files: Returns the paths of an image's own files below the output folder.
        encode: Makes the contents of these files, in the same order.
        record: Returns what the run's files need to know about an image.
        run_files: Paths of the files about the whole run, below the output folder.
        finish: Returns a function for each of `run_files` that writes it. The records are ordered from the most
            uncertain image to the least uncertain one, and can be iterated several times.
        kept: Number of records that `finish` needs, from the most uncertain image on; None for all of them.
        is_sealed: Whether the files carry a seal themselves (`provenance.py`); otherwise checksums.json lists them.
    """

    name: str
    summary: str
    image_files: Callable[[ImageName], list[str]] = lambda _: []
    encode: Callable[[LabeledImage, LabelOptions], list[bytes]] = lambda *_: []
    record: Callable[[LabeledImage, LabelOptions], Record] | None = None
    run_files: tuple[str, ...] = ()
    finish: Callable[[Iterable[Record], LabelOptions], list[Write]] = lambda *_: []
    kept: int | None = None
    is_sealed: bool = True
