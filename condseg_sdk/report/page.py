"""Renders the report as one HTML page that contains everything and loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from condseg_sdk._version import __version__
from condseg_sdk.evaluation.image_result import ImageResult
from condseg_sdk.evaluation.result import FILES, Evaluation
from condseg_sdk.report.charts import Chart
from condseg_sdk.report.overlays import ERROR_COLORS

__all__ = ["Overlay", "Section", "page"]

LEGEND = {
    "found": "found (true positive)",
    "too much": "too much (false positive)",
    "missed": "missed (false negative)",
}
IMAGE_COLUMNS = (
    "name",
    "size",
    "foreground",
    "marked",
    "score",
    "Dice",
    "IoU",
    "precision",
    "recall",
    "boundary IoU",
    "HD95",
    "ASSD",
)


@dataclass(frozen=True)
class Overlay:
    """An overlay of an image.

    Attributes:
        group: Group of the image: "Worst", "Median" or "Best".
        result: Result of the image.
        image: The overlay.
    """

    group: str
    result: ImageResult
    image: Image.Image


@dataclass(frozen=True)
class Section:
    """A table at the end of the page, and a longer text that can be expanded.

    Attributes:
        title: Title of the section.
        rows: Rows of the table.
        summary: Heading of the text.
        text: Preformatted text.
    """

    title: str
    rows: Sequence[Sequence[str]]
    summary: str = ""
    text: str = ""


def page(
    evaluation: Evaluation,
    *,
    title: str,
    selected_on: str | None,
    training: Sequence[Chart],
    charts: Sequence[Chart],
    overlays: Sequence[Overlay],
    sections: Sequence[Section],
) -> str:
    """Render the page.

    Args:
        evaluation: The evaluation to show.
        title: Title of the page.
        selected_on: What readers must know about the images, or None.
        training: Charts of the training; may be empty.
        charts: Charts of the evaluation.
        overlays: Overlays, ordered by group.
        sections: Sections at the end of the page.
    """
    environment = Environment(loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html.j2").render(
        title=title,
        subtitle=f"{evaluation.model} on {evaluation.data}, threshold {evaluation.threshold:g}, {evaluation.date}",
        selected_on=selected_on,
        tiles=_tiles(evaluation),
        training=[_embedded(chart) for chart in training],
        legend=[(LEGEND[kind], f"rgb{color}") for kind, color in ERROR_COLORS.items()]
        + [("outline of the ground truth", "white")],
        overlays=_groups(overlays),
        count=len(evaluation.images),
        empty_note=_empty_note(evaluation),
        trained_on=evaluation.trained_on,
        means=evaluation.table(),
        charts=[_embedded(chart) for chart in charts],
        subgroups=evaluation.subgroup_tables(),
        csv=FILES["images"],
        image_columns=IMAGE_COLUMNS,
        images=[_row(image) for image in sorted(evaluation.images, key=lambda image: image.small.dice)],
        sections=sections,
        version=__version__,
        date=evaluation.date,
    )


def _tiles(evaluation: Evaluation) -> list[dict[str, str]]:
    means = evaluation.means()
    tiles = [{"title": "images", "value": str(len(evaluation.images)), "detail": evaluation.data}]
    shown = {**{name: means[name] for name in ("mDSC", "mIoU", "HD95")}, "ECE": evaluation.reliability["ECE"]}
    for name, estimate in shown.items():
        digits = 1 if name == "HD95" else 3
        interval = (
            f"95 %: {estimate.low:.{digits}f} to {estimate.high:.{digits}f}" if estimate.images > 1 else "one image"
        )
        title = {"HD95": "HD95, pixels at 256x256", "ECE": "calibration error (ECE)"}.get(name, f"{name} at 256x256")
        tiles.append({"title": title, "value": f"{estimate.value:.{digits}f}", "detail": interval})
    for name, images in (("missed", "with a region"), ("false alarms", "without a region")):
        if name in evaluation.detection:
            share = evaluation.detection[name]
            count = f"{round(share.value * share.images)} of {share.images} images {images}"
            interval = f"95 %: {share.low:.1%} to {share.high:.1%}"
            tiles.append({"title": name, "value": f"{share.value:.1%}", "detail": f"{count}; {interval}"})
    return tiles


def _empty_note(evaluation: Evaluation) -> str:
    count = evaluation.half_empty
    if not count:
        return ""
    images = "1 image has" if count == 1 else f"{count} images have"
    return f"{images} only one of prediction and ground truth empty; their distances count as the image's diagonal."


def _row(image: ImageResult) -> list[str]:
    metrics = image.small
    shares = (metrics.dice, metrics.iou, metrics.precision, metrics.recall, metrics.boundary_iou)
    size = f"{image.size[1]}x{image.size[0]}"
    distances = (f"{metrics.hd95:.1f}", f"{metrics.assd:.2f}")
    return [
        image.pair.name,
        size,
        f"{image.foreground:.2%}",
        f"{image.marked:.2%}",
        f"{image.score:.3f}",
        *(f"{value:.3f}" for value in shares),
        *distances,
    ]


def _groups(overlays: Sequence[Overlay]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for overlay in overlays:
        result = overlay.result
        caption = (
            f"{result.pair.name}: Dice {result.small.dice:.3f}, precision {result.small.precision:.3f}, recall "
            f"{result.small.recall:.3f}"
        )
        file = io.BytesIO()
        overlay.image.save(file, format="JPEG", quality=88)
        entry = {"uri": _uri(file.getvalue(), "jpeg"), "alt": f"Overlay of {caption}", "caption": caption}
        groups.setdefault(overlay.group, []).append(entry)
    return [{"title": title, "overlays": shown} for title, shown in groups.items()]


def _embedded(chart: Chart) -> dict[str, str]:
    images = {"light": _uri(chart.light, "png"), "dark": _uri(chart.dark, "png")}
    return {"title": chart.title, "alt": chart.alt, "note": chart.note, **images}


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
