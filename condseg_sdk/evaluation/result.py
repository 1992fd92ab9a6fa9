"""The result of an evaluation: metrics of each image, means with intervals, and files of both."""

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
from condseg_sdk.metrics import ImageScores
from condseg_sdk.metrics.calibration import expected_calibration_error
from condseg_sdk.metrics.error_detection import ErrorDetection
from condseg_sdk.metrics.intervals import Estimate, estimate, estimate_mean
from condseg_sdk.metrics.threshold_curve import ThresholdCurve, threshold_curve
from condseg_sdk.provenance import seal_json
from condseg_sdk.words import pluralize

__all__ = ["PAPER_SIZE", "TITLES", "Evaluation", "EvaluationOptions", "ImageMetrics", "ImageResult"]

PAPER_SIZE = (256, 256)
"""(height, width) at which the paper evaluates."""

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
"""Names of the means of the metrics, as papers write them."""

Size = Literal["256", "own"]
SIZES: dict[Size, str] = {"256": "256x256", "own": "own size"}
FILES = {"images": "per_image.csv", "summary": "summary.json"}


@dataclass(frozen=True)
class ImageMetrics(ImageScores):
    """Metrics of one image at one size: the metrics of `ImageScores`, and more. docs/evaluation.md explains each.

    Attributes:
        mae: Mean absolute difference of probability and ground truth, in [0, 1].
        boundary_iou: Intersection over union of the boundaries, in [0, 1].
        hd95: 95th percentile of the distances between the contours, in pixels.
        assd: Average symmetric surface distance, in pixels.
        hd95_mm: `hd95` in millimeters at the image's own size, if the spacing is known; otherwise NaN.
        assd_mm: `assd` in millimeters at the image's own size, if the spacing is known; otherwise NaN.
    """

    mae: float
    boundary_iou: float
    hd95: float
    assd: float
    hd95_mm: float = math.nan
    assd_mm: float = math.nan


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The result of one image.

    Attributes:
        pair: The image and its mask.
        size: (height, width) of the image.
        foreground: Share of foreground in the ground truth, in [0, 1].
        empty: Which of prediction and ground truth has no foreground, at the image's own size.
        own: Metrics at the image's own size.
        small: Metrics at 256x256.
        uncertainty: How well `Segmentation.uncertainty` finds the errors, at 256x256.
        branch_uncertainty: How well the uncertainty branch does; None unless requested.
        bins: Result of `calibration_bins` at 256x256.
        counts: Result of `threshold_counts` at 256x256.
        bits: Number of bits with which the image was read, if it has 16-bit values; None for others.
    """

    pair: Pair
    size: tuple[int, int]
    foreground: float
    empty: Literal["none", "prediction", "target", "both"]
    own: ImageMetrics
    small: ImageMetrics
    uncertainty: ErrorDetection
    branch_uncertainty: ErrorDetection | None
    bins: NDArray[np.float64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    bits: int | None = None

    def row(self) -> dict[str, str | float | int]:
        """Return the row of the CSV file, by column."""
        branch = self.branch_uncertainty or ErrorDetection(math.nan, math.nan)
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
        tta: Whether predictions were averaged over four flips.
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
    """The result of a model on a set of images, as `evaluate` returns it.

    Attributes:
        images: Result of each image, in the order of the data.
        model: Name of the model.
        data: Name of the data.
        threshold: Lowest probability at which a pixel is foreground.
        options: Options of the evaluation.
        environment: Versions, hardware and device.
        date: Date as YYYY-MM-DD, UTC.
        seconds: Time of prediction and evaluation in seconds.
        command: Command that reproduces the result, or None.

    Example:
        >>> from condseg_sdk import evaluate
        >>> evaluation = evaluate(predictor, "my_test_set")
        >>> evaluation.images[0].own.dice == evaluation.images[0].small.dice
        False
        >>> evaluation.means("own")["mIoU"].images
        6
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
        """Return the mean of each metric over images with its 95 % interval, by its name in `TITLES`.

        Metrics in mm are included if the spacing is known.

        Args:
            size: "256" for 256x256, "own" for the images' own sizes.
        """
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
        """Calibration and error detection at 256x256, by name.

        "ECE" is over all pixels. "AUROC of ..." and "errors in the top 5 % of ..." are means over the images with
        errors, for "uncertainty" and, if it was measured, "branch uncertainty".
        """
        bins = np.stack([image.bins for image in self.images])
        ece = estimate(
            bins.reshape(len(bins), -1),
            lambda sums: expected_calibration_error(sums.reshape(*sums.shape[:-1], *bins.shape[1:])),
            seed=self.options.seed,
        )
        found = {"ECE": ece}
        maps = ("uncertainty", "branch_uncertainty") if self.options.branch_uncertainty else ("uncertainty",)
        for name in maps:
            results: list[ErrorDetection] = [getattr(image, name) for image in self.images]
            shown = name.replace("_", " ")
            found[f"AUROC of {shown}"] = self._mean([result.auroc for result in results])
            found[f"errors in the top 5 % of {shown}"] = self._mean([result.in_top5 for result in results])
        return found

    @cached_property
    def curve(self) -> ThresholdCurve:
        """Precision, recall and Dice at every threshold, at 256x256."""
        return threshold_curve(np.stack([image.counts for image in self.images]))

    @property
    def half_empty(self) -> int:
        """Number of images with only one of prediction and ground truth empty, whose distances are the diagonal."""
        return sum(image.empty in ("prediction", "target") for image in self.images)

    @property
    def metrics(self) -> dict[str, object]:
        """Metrics at 256x256 as plain numbers, for `provenance["metrics"]` of a checkpoint and for the manifest.

        The keys are dataset, images, date, command (if known), each name of `means`, "ECE", and intervals {name: [low,
        high]}.
        """
        estimates = {**self.means(), "ECE": self.reliability["ECE"]}
        return {
            "dataset": self.data,
            "images": len(self.images),
            "date": self.date,
            **({"command": self.command} if self.command else {}),
            **{name: round(estimate.value, 4) for name, estimate in estimates.items()},
            "intervals": {
                name: [round(estimate.low, 4), round(estimate.high, 4)]
                for name, estimate in estimates.items()
                if not math.isnan(estimate.low)
            },
        }

    def to_dict(self) -> dict[str, object]:
        """Return everything except for the individual images, as plain JSON types."""

        def plain(estimates: Mapping[str, Estimate]) -> dict[str, object]:
            return {name: estimate.to_dict() for name, estimate in estimates.items()}

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
        """Write per_image.csv and summary.json to a folder; each appears complete or not at all.

        Args:
            folder: Path of the folder, which is created if it is missing.

        Returns:
            The path of the folder.

        Raises:
            OutputError: The folder cannot be written to.
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
        """Return rows for display: name, value at 256x256, value at the images' own sizes."""
        own = self.means("own")
        rows = [(name, str(mean), str(own[name])) for name, mean in self.means().items()]
        rows += [(name, "", str(own[name])) for name in own if name not in self.means()]
        return rows + [(name, str(estimate), "") for name, estimate in self.reliability.items()]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.model} on {self.data}: {pluralize(len(self.images), 'image')}, threshold {self.threshold:g}"
        rows = [("", *SIZES.values()), *self.table()]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield "means over images with 95 % intervals; distances in pixels"
        if self.half_empty:
            yield f"{self.half_empty} images with prediction or ground truth empty: their distance is the diagonal"
