"""Detection: what was found or missed in whole images, by all of them, by size of the region and by group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from condseg_sdk.evaluation.image_result import ImageResult
from condseg_sdk.metrics.intervals import Estimate, estimate_auroc, estimate_mean, estimate_share

__all__ = [
    "LIMIT_COLUMNS",
    "SUBGROUP_COLUMNS",
    "ScoreLimit",
    "Subgroup",
    "by_group",
    "by_size",
    "detection",
    "score_limits",
]

REGION_SIZES = (
    ("small, under 5 %", 0.0, 0.05),
    ("medium, 5 to 20 %", 0.05, 0.2),
    ("large, 20 % or more", 0.2, 1.01),
)
"""Sizes of the region as a share of the image."""
NO_GROUP = "without a group"
MAX_GROUPS = 30
"""More are patients rather than hospitals, too small for metrics of their own."""
MIN_SCORES = (None, 0.1, 0.3, 0.5, 0.7, 0.9)
SUBGROUP_COLUMNS = ("images", "mIoU", "mDSC", "missed", "without a region", "false alarms")
LIMIT_COLUMNS = ("lowest score (min_score)", "missed", "false alarms")


@dataclass(frozen=True)
class Subgroup:
    """Metrics of some of the images.

    Attributes:
        name: Name of the subgroup.
        images: Number of its images.
        iou: Mean IoU at 256x256 over its images with a region.
        dice: Mean Dice at 256x256 over its images with a region.
        missed: Share of its images with a region whose region is missed.
        false_alarms: Share of its images without a region that are marked.
    """

    name: str
    images: int
    iou: Estimate
    dice: Estimate
    missed: Estimate
    false_alarms: Estimate

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        estimates = {"mIoU": self.iou, "mDSC": self.dice, "missed": self.missed, "false_alarms": self.false_alarms}
        return {
            "name": self.name,
            "images": self.images,
            **{name: estimate.to_dict() for name, estimate in estimates.items()},
        }

    def row(self) -> tuple[str, ...]:
        """Return the cells under `SUBGROUP_COLUMNS`."""
        without = str(self.false_alarms.images)
        cells = (_short(self.iou), _short(self.dice), _short(self.missed), without, _short(self.false_alarms))
        return (self.name, str(self.images), *cells)


@dataclass(frozen=True)
class ScoreLimit:
    """What a lowest score of images would change.

    Attributes:
        min_score: Score below which masks are empty; None for no limit.
        missed: Share of the images with a region whose region is missed.
        false_alarms: Share of the images without a region that are marked.
    """

    min_score: float | None
    missed: Estimate
    false_alarms: Estimate

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "min_score": self.min_score,
            "missed": self.missed.to_dict(),
            "false_alarms": self.false_alarms.to_dict(),
        }

    def row(self) -> tuple[str, str, str]:
        """Return the cells under `LIMIT_COLUMNS`."""
        limit = "none" if self.min_score is None else f"{self.min_score:g}"
        return limit, _short(self.missed), _short(self.false_alarms)


def score_limits(images: Sequence[ImageResult]) -> list[ScoreLimit]:
    """Count missed regions and false alarms at several lowest scores."""
    shown = [image for image in images if image.has_region]
    without = [image for image in images if not image.has_region]
    limits = [(limit, 0.0 if limit is None else limit) for limit in MIN_SCORES]
    return [
        ScoreLimit(
            limit,
            _share(image.is_missed or image.score < least for image in shown),
            _share(image.is_false_alarm and image.score >= least for image in without),
        )
        for limit, least in limits
    ]


def detection(images: Sequence[ImageResult], *, seed: int = 0) -> dict[str, Estimate]:
    """Measure what was found or missed in whole images, at their own sizes.

    Args:
        images: Results of the images.
        seed: Seed of the confidence intervals.

    Returns:
        By name, without those for which there are no images: "missed", "nothing marked", "false alarms", "area of false
        alarms", "regions of false alarms", "AUROC of the score". docs/evaluation.md explains each.
    """
    shown = [image for image in images if image.has_region]
    without = [image for image in images if not image.has_region]
    found = {
        "missed": _share(image.is_missed for image in shown),
        "nothing marked": _share(image.marked == 0 for image in shown),
        "false alarms": _share(image.is_false_alarm for image in without),
        "area of false alarms": estimate_mean([image.marked for image in without], seed=seed),
        "regions of false alarms": estimate_mean([float(image.regions) for image in without], seed=seed),
        "AUROC of the score": estimate_auroc(
            [image.score for image in shown], [image.score for image in without], seed=seed
        ),
    }
    return {name: value for name, value in found.items() if value.images}


def by_size(images: Sequence[ImageResult], *, seed: int = 0) -> list[Subgroup]:
    """Measure the images by the size of their region, and those without one; sizes without images are left out."""
    groups = {
        name: [image for image in images if image.has_region and low <= image.foreground < high]
        for name, low, high in REGION_SIZES
    }
    groups["no region"] = [image for image in images if not image.has_region]
    return [_subgroup(name, members, seed) for name, members in groups.items() if members]


def by_group(images: Sequence[ImageResult], *, seed: int = 0) -> list[Subgroup]:
    """Measure the images of each group, in the order of their names; nothing without groups, or with too many."""
    groups: dict[str, list[ImageResult]] = {}
    for image in images:
        groups.setdefault(image.pair.group or NO_GROUP, []).append(image)
    if set(groups) == {NO_GROUP} or len(groups) > MAX_GROUPS:
        return []
    return [_subgroup(name, members, seed) for name, members in sorted(groups.items())]


def _subgroup(name: str, images: Sequence[ImageResult], seed: int) -> Subgroup:
    shown = [image for image in images if image.has_region]
    return Subgroup(
        name=name,
        images=len(images),
        iou=estimate_mean([image.small.iou for image in shown], seed=seed),
        dice=estimate_mean([image.small.dice for image in shown], seed=seed),
        missed=_share(image.is_missed for image in shown),
        false_alarms=_share(image.is_false_alarm for image in images if not image.has_region),
    )


def _short(found: Estimate) -> str:
    """Format a value of a table with many columns."""
    if math.isnan(found.value):
        return "-"
    interval = "" if math.isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.value:.3f}{interval}"


def _share(properties: Iterable[bool]) -> Estimate:
    values = list(properties)
    return estimate_share(sum(values), len(values))
