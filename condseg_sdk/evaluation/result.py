"""The result of an evaluation: metrics of each image, means with intervals, and files of both."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from condseg_sdk.checksums import sha256_of
from condseg_sdk.evaluation.detection import (
    LIMIT_COLUMNS,
    SUBGROUP_COLUMNS,
    ScoreLimit,
    Subgroup,
    by_group,
    by_size,
    detection,
    score_limits,
)
from condseg_sdk.evaluation.image_result import ImageResult
from condseg_sdk.files import make_folder, write_csv
from condseg_sdk.json_files import write_json
from condseg_sdk.metrics.calibration import expected_calibration_error
from condseg_sdk.metrics.error_detection import ErrorDetection
from condseg_sdk.metrics.intervals import Estimate, estimate, estimate_mean
from condseg_sdk.metrics.threshold_curve import ThresholdCurve, threshold_curve
from condseg_sdk.provenance import seal_json
from condseg_sdk.words import pluralize

__all__ = ["PAPER_SIZE", "TITLES", "Evaluation", "EvaluationOptions"]

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
class EvaluationOptions:
    """How the images were predicted and measured, as given to `evaluate`.

    Attributes:
        tta: Whether predictions were averaged over four flips.
        tile: Side of the tiles in pixels into which images were cut; None for whole images.
        branch_uncertainty: Whether the uncertainty branch was measured.
        bits: Number of bits in use in images with 16-bit values; None where it was found from the images.
        spacing_mm: Distance between rows and between columns of pixels in millimeters, None where it is not known.
        min_score: Score below which the mask of an image is empty; None for no such limit.
        seed: Seed of the confidence intervals.
    """

    tta: bool = False
    tile: int | None = None
    branch_uncertainty: bool = False
    bits: int | None = None
    spacing_mm: tuple[float, float] | None = None
    min_score: float | None = None
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
    def detection(self) -> dict[str, Estimate]:
        """What was found or missed in whole images, by name: missed regions, false alarms, AUROC of the score.

        docs/evaluation.md explains each. Values for which there are no images are left out.
        """
        return detection(self.images, seed=self.options.seed)

    @cached_property
    def by_size(self) -> list[Subgroup]:
        """The images by the size of their region, and those without one."""
        return by_size(self.images, seed=self.options.seed)

    @cached_property
    def by_group(self) -> list[Subgroup]:
        """The images by group, such as a hospital; empty if they have none, or more than 30."""
        return by_group(self.images, seed=self.options.seed)

    @cached_property
    def by_min_score(self) -> list[ScoreLimit]:
        """What `min_score` would change: missed regions and false alarms at several values.

        Empty if a limit was given.
        """
        return [] if self.options.min_score is not None else score_limits(self.images)

    @cached_property
    def curve(self) -> ThresholdCurve:
        """Precision, recall and Dice at every threshold, at 256x256."""
        return threshold_curve(np.stack([image.counts for image in self.images]))

    @property
    def half_empty(self) -> int:
        """Number of images with only one of prediction and ground truth empty, whose distances are the diagonal."""
        return sum(image.empty in ("prediction", "target") for image in self.images)

    @property
    def trained_on(self) -> int | None:
        """Number of images that the checkpoint was trained on, by their content; None if it has no digests."""
        known = [image.trained_on for image in self.images]
        return None if None in known else sum(map(bool, known))

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
            "detection": plain(self.detection),
            "by_size": [subgroup.to_dict() for subgroup in self.by_size],
            "by_group": [subgroup.to_dict() for subgroup in self.by_group],
            "by_min_score": [limit.to_dict() for limit in self.by_min_score],
            "one_mask_empty": self.half_empty,
            "both_masks_empty": sum(image.empty == "both" for image in self.images),
            "trained_on": self.trained_on,
            "interval": "95 %, percentile bootstrap over images; Wilson's interval for shares of images",
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
        rows += [(name, str(estimate), "") for name, estimate in self.reliability.items()]
        return rows + [(name, "", str(estimate)) for name, estimate in self.detection.items()]

    def subgroup_tables(self) -> list[list[tuple[str, ...]]]:
        """Return tables for display, each with its headings: by size of the region, by group, and by `min_score`."""
        found = {"size of region": self.by_size, "group": self.by_group}
        tables = [
            [(title, *SUBGROUP_COLUMNS), *(subgroup.row() for subgroup in subgroups)]
            for title, subgroups in found.items()
            if subgroups
        ]
        return tables + ([[LIMIT_COLUMNS, *(limit.row() for limit in self.by_min_score)]] if self.by_min_score else [])

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.model} on {self.data}: {pluralize(len(self.images), 'image')}, threshold {self.threshold:g}"
        yield from _aligned([("", *SIZES.values()), *self.table()])
        for rows in self.subgroup_tables():
            yield ""
            yield from _aligned(rows)
        yield ""
        yield "means over images with 95 % intervals, in subgroups over those with a region; distances in pixels"
        if self.trained_on:
            yield f"{pluralize(self.trained_on, 'image')} trained on before, by content"
        if self.half_empty:
            yield f"{self.half_empty} images with prediction or ground truth empty: their distance is the diagonal"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
