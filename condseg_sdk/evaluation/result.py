"""What an evaluation leaves: figures of every image, means with intervals, and files of both."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.checksums import sha256_of
from condseg_sdk.data import Pair
from condseg_sdk.files import make_folder, write_csv
from condseg_sdk.json_files import write_json
from condseg_sdk.metrics.calibration import expected_calibration_error
from condseg_sdk.metrics.error_detection import ErrorsFound
from condseg_sdk.metrics.intervals import Estimate, estimate, estimate_mean
from condseg_sdk.metrics.threshold_curve import ThresholdCurve, threshold_curve
from condseg_sdk.provenance import seal_json

__all__ = ["PAPER_SIZE", "TITLES", "Evaluation", "EvaluationOptions", "Figures", "ImageResult"]

PAPER_SIZE = (256, 256)
"""The size at which the paper measures."""

TITLES = {
    "iou": "mIoU",
    "dice": "mDSC",
    "precision": "precision",
    "recall": "recall",
    "f2": "F2",
    "accuracy": "accuracy",
    "mae": "MAE",
    "boundary_iou": "boundary IoU",
    "hd95": "HD95",
    "assd": "ASSD",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
}
"""The names of the figures' means, as the field writes them."""

Size = Literal["256", "own"]
SIZES: dict[Size, str] = {"256": "256x256", "own": "own size"}
FILES = {"images": "per_image.csv", "summary": "summary.json"}


@dataclass(frozen=True)
class Figures:
    """One image at one size; docs/evaluation.md says what each of them is.

    Attributes:
        iou, dice, precision, recall, f2, accuracy, boundary_iou: in [0, 1].
        mae: mean absolute difference of probability and truth, in [0, 1].
        hd95, assd: in pixels.
        hd95_mm, assd_mm: in millimetres, at the image's own size where the spacing is known; otherwise NaN.
    """

    iou: float
    dice: float
    precision: float
    recall: float
    f2: float
    accuracy: float
    mae: float
    boundary_iou: float
    hd95: float
    assd: float
    hd95_mm: float = math.nan
    assd_mm: float = math.nan


@dataclass(frozen=True, eq=False)
class ImageResult:
    """All about one image.

    Attributes:
        pair: the image and its mask.
        size: the image's (height, width).
        foreground: share of the image that is foreground in truth.
        empty: which of the two masks has no pixel, at the image's own size.
        own, small: figures at the image's own size and at 256x256.
        uncertainty: How well `Segmentation.uncertainty` finds the errors, at 256x256.
        branch_uncertainty: How well the uncertainty branch does; None unless requested.
        bins: `calibration_bins` at 256x256.
        counts: `threshold_counts` at 256x256.
    """

    pair: Pair
    size: tuple[int, int]
    foreground: float
    empty: Literal["none", "answer", "truth", "both"]
    own: Figures
    small: Figures
    uncertainty: ErrorsFound
    branch_uncertainty: ErrorsFound | None
    bins: NDArray[np.float64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)

    def row(self) -> dict[str, str | float | int]:
        """A line of the CSV file."""
        branch = self.branch_uncertainty or ErrorsFound(math.nan, math.nan)
        return {
            "name": self.pair.name,
            "width": self.size[1],
            "height": self.size[0],
            "foreground": self.foreground,
            "empty": self.empty,
            **{f"{key}_256": value for key, value in asdict(self.small).items() if not key.endswith("_mm")},
            **{f"{key}_own": value for key, value in asdict(self.own).items()},
            **{f"uncertainty_{key}": value for key, value in asdict(self.uncertainty).items()},
            **{f"branch_uncertainty_{key}": value for key, value in asdict(branch).items()},
        }


@dataclass(frozen=True)
class EvaluationOptions:
    """How the images were predicted and measured, as given to `evaluate`.

    Attributes:
        tta: Whether predictions were averaged over four mirror images.
        tile: Side of the tiles in pixels into which images were cut; None for whole images.
        branch_uncertainty: Whether the uncertainty branch was measured.
        bits: Number of bits in use in images with 16-bit values; None where it was found from the images.
        spacing_mm: Distance between rows and between columns of pixels in millimeters, None where it is not known.
        seed: Seed of the confidence intervals.
    """

    tta: bool = False
    tile: int | None = None
    branch_uncertainty: bool = False
    bits: int | None = None
    spacing_mm: tuple[float, float] | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The figures of a model on a set of images.

    Attributes:
        images: one result an image, in the set's order.
        model: what was measured, in words.
        data: on what.
        threshold: from which probability on a pixel counted as foreground.
        options: How it was measured.
        environment: versions, hardware, device.
        date: YYYY-MM-DD, UTC.
        seconds: for predicting and measuring.
        command: how to make the same figures again, or None.
    """

    images: tuple[ImageResult, ...]
    model: str
    data: str
    threshold: float
    options: EvaluationOptions
    environment: dict[str, str]
    date: str
    seconds: float
    command: str | None = None

    def means(self, size: Size = "256") -> dict[str, Estimate]:
        """Mean of each figure over images with its 95 % interval, by its name in `TITLES`; without those in mm where
        there is no spacing."""
        return self._means[size]

    @cached_property
    def _means(self) -> dict[Size, dict[str, Estimate]]:
        return {"256": self._means_of("small"), "own": self._means_of("own")}

    def _means_of(self, attribute: str) -> dict[str, Estimate]:
        rows = [asdict(getattr(image, attribute)) for image in self.images]
        means = {title: self._mean([row[key] for row in rows]) for key, title in TITLES.items()}
        return {title: mean for title, mean in means.items() if mean.images}

    def _mean(self, values: list[float]) -> Estimate:
        return estimate_mean(values, seed=self.options.seed)

    @cached_property
    def reliability(self) -> dict[str, Estimate]:
        """Calibration and error finding at 256x256: "ECE" over all pixels; "AUROC of ..." and "errors in the top 5 % of
        ..." as means over the images that have errors, for "uncertainty" and, where measured, "branch uncertainty"."""
        bins = np.stack([image.bins for image in self.images])
        ece = estimate(
            bins.reshape(len(bins), -1),
            lambda sums: expected_calibration_error(sums.reshape(*sums.shape[:-1], *bins.shape[1:])),
            seed=self.options.seed,
        )
        found = {"ECE": ece}
        maps = ("uncertainty", "branch_uncertainty") if self.options.branch_uncertainty else ("uncertainty",)
        for name in maps:
            results: list[ErrorsFound] = [getattr(image, name) for image in self.images]
            shown = name.replace("_", " ")
            found[f"AUROC of {shown}"] = self._mean([result.auroc for result in results])
            found[f"errors in the top 5 % of {shown}"] = self._mean([result.in_top5 for result in results])
        return found

    @cached_property
    def curve(self) -> ThresholdCurve:
        """Precision, recall and Dice over thresholds, at 256x256."""
        return threshold_curve(np.stack([image.counts for image in self.images]))

    @property
    def half_empty(self) -> int:
        """Images in which only one of mask and answer is empty: their distances are the image's diagonal."""
        return sum(image.empty in ("answer", "truth") for image in self.images)

    @property
    def metrics(self) -> dict[str, object]:
        """The figures at 256x256 as plain numbers, with what they were measured on: for `provenance["metrics"]` of a
        checkpoint's config and for the manifest.

        Keys: dataset, images, date, command (if known), every name of `means`, "ECE", intervals {name: [low, high]}.
        """
        figures = {**self.means(), "ECE": self.reliability["ECE"]}
        return {
            "dataset": self.data,
            "images": len(self.images),
            "date": self.date,
            **({"command": self.command} if self.command else {}),
            **{name: round(figure.value, 4) for name, figure in figures.items()},
            "intervals": {
                name: [round(figure.low, 4), round(figure.high, 4)]
                for name, figure in figures.items()
                if not math.isnan(figure.low)
            },
        }

    def to_dict(self) -> dict[str, object]:
        """Everything but the single images, as plain JSON types."""

        def plain(estimates: Mapping[str, Estimate]) -> dict[str, object]:
            return {name: figure.to_dict() for name, figure in estimates.items()}

        return {
            "model": self.model,
            "data": self.data,
            "images": len(self.images),
            "threshold": self.threshold,
            **asdict(self.options),
            "means": {SIZES[size]: plain(self.means(size)) for size in SIZES},
            "reliability": plain(self.reliability),
            "one_mask_empty": self.half_empty,
            "both_masks_empty": sum(image.empty == "both" for image in self.images),
            "interval": "95 %, percentile bootstrap over images",
            "environment": self.environment,
            "date": self.date,
            "seconds": round(self.seconds, 1),
            "command": self.command,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write per_image.csv and summary.json; each appears whole or not at all.

        Returns:
            The folder, which is made where it is not there.

        Raises:
            OptionError: the folder cannot be written to.
        """
        folder = make_folder(folder)
        images = [image.row() for image in self.images]
        # A missing value is an empty cell, as spreadsheets and pandas read it.
        cells = [{key: "" if value != value else value for key, value in row.items()} for row in images]
        rows = write_csv(folder / FILES["images"], list(images[0]), cells)
        values = seal_json({**self.to_dict(), "files": {rows.name: sha256_of(rows)}})
        write_json(folder / FILES["summary"], values)
        return folder

    def table(self) -> list[tuple[str, str, str]]:
        """Rows for people: name, at 256x256, at the image's own size."""
        own = self.means("own")
        rows = [(name, str(figure), str(own[name])) for name, figure in self.means().items()]
        rows += [(name, "", str(own[name])) for name in own if name not in self.means()]
        return rows + [(name, str(figure), "") for name, figure in self.reliability.items()]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.model} on {self.data}: {len(self.images)} images, threshold {self.threshold:g}"
        rows = [("", *SIZES.values()), *self.table()]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield "means over images with 95 % intervals; distances in pixels"
        if self.half_empty:
            yield f"{self.half_empty} images with only one of mask and answer empty: their distance is the diagonal"
