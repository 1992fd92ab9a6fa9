"""Draws the report's charts with matplotlib's objects (no pyplot, no state), each for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from condseg_sdk.evaluation.result import Evaluation
from condseg_sdk.metrics.threshold_curve import THRESHOLDS
from condseg_sdk.words import pluralize

__all__ = ["Chart", "evaluation_charts", "training_charts"]

SIZE = (5.0, 3.3)  # inches
DPI = 150

LOSS_NOTES = {
    1: "Training: cross-entropy and Dice loss of both views of an image, and the views' agreement.",
    2: "Training: the whole loss, with the foreground and background maps and complementarity, on augmented images.",
}
"""Terms of the training loss of each stage."""
VALIDATION_NOTE = (
    "Validation: cross-entropy and Dice loss of the mask alone. Compare the shapes of the curves, not their heights."
)


@dataclass(frozen=True)
class Theme:
    """Colors of a chart."""

    paper: str
    ink: str
    faint: str
    first: str
    second: str
    mark: str


LIGHT = Theme(paper="#ffffff", ink="#1d2730", faint="#d8dee4", first="#0f766e", second="#c2570c", mark="#a21caf")
DARK = Theme(paper="#161d24", ink="#dbe3ea", faint="#33404c", first="#40d8c8", second="#fb9a4b", mark="#e879f9")


@dataclass(frozen=True)
class Chart:
    """A chart as PNG.

    Attributes:
        name: Name of its file, without extension.
        title: Title above it.
        alt: Description for people who cannot see it.
        light: PNG file for a light page.
        dark: PNG file for a dark page.
        note: Note below it.
    """

    name: str
    title: str
    alt: str
    light: bytes
    dark: bytes
    note: str = ""


def _chart(name: str, title: str, alt: str, draw: Callable[[Axes, Theme], None], note: str = "") -> Chart:
    def drawn(theme: Theme) -> Figure:
        figure = Figure(figsize=SIZE, dpi=DPI, facecolor=theme.paper)
        axes = figure.add_subplot(facecolor=theme.paper)
        axes.grid(color=theme.faint, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.faint)
        axes.tick_params(colors=theme.ink, labelsize=9)
        draw(axes, theme)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=theme.ink, fontsize=10)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9, labelcolor=theme.ink)
        return figure

    light, dark = drawn(LIGHT), drawn(DARK)
    light.set_layout_engine("constrained")
    light_png = _png(light)
    # A layout takes as long as the drawing, and that of the dark chart is the same.
    dark.axes[0].set_position(light.axes[0].get_position())
    return Chart(name, title, alt, light_png, _png(dark), note)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def training_charts(history: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Draw loss and validation IoU over the epochs of each stage of a run."""
    charts = []
    for stage, what in ((1, "consistency reinforcement"), (2, "the whole network")):
        rows = [row for row in history if row["stage"] == stage]
        if rows:
            charts += [_loss(stage, what, rows), _validation(stage, what, rows)]
    return charts


def _loss(stage: int, what: str, rows: Sequence[Mapping[str, float]]) -> Chart:
    epochs = [row["epoch"] + 1 for row in rows]
    labels = ("training (all terms)", "validation (mask alone)")

    def draw(axes: Axes, theme: Theme) -> None:
        marker = "o" if len(rows) < 25 else ""
        axes.plot(epochs, [row["loss"] for row in rows], color=theme.first, marker=marker, ms=4, label=labels[0])
        axes.plot(epochs, [row["val_loss"] for row in rows], color=theme.second, marker=marker, ms=4, label=labels[1])
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    last = rows[-1]
    end = f"{last['loss']:.3f} (validation {last['val_loss']:.3f})"
    alt = f"Loss of stage {stage} over {pluralize(len(rows), 'epoch')}, at the end {end}"
    note = f"{LOSS_NOTES[stage]} {VALIDATION_NOTE}"
    return _chart(f"stage{stage}_loss", f"Stage {stage}, {what}: loss", alt, draw, note)


def _validation(stage: int, what: str, rows: Sequence[Mapping[str, float]]) -> Chart:
    epochs = [row["epoch"] + 1 for row in rows]
    values = [row["val_iou"] for row in rows]
    best = int(np.argmax(values))

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot(epochs, values, color=theme.first, marker="o" if len(rows) < 25 else "", ms=4)
        label = f"best: epoch {epochs[best]}, {values[best]:.3f}"
        axes.plot(epochs[best], values[best], color=theme.mark, marker="D", ms=8, ls="", label=label)
        axes.set(xlabel="epoch", ylabel="validation IoU at threshold 0.5")
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    end = f"best {values[best]:.3f} in epoch {epochs[best]}"
    alt = f"Validation IoU of stage {stage} over {pluralize(len(rows), 'epoch')}, {end}"
    return _chart(f"stage{stage}_iou", f"Stage {stage}, {what}: validation IoU", alt, draw)


def evaluation_charts(evaluation: Evaluation) -> list[Chart]:
    """Draw precision over recall; Dice by threshold, by image and by object size; and reliability."""
    return [
        _precision_recall(evaluation),
        _dice_over_thresholds(evaluation),
        _dice_of_images(evaluation),
        _dice_by_size(evaluation),
        _reliability(evaluation),
    ]


def _chosen(evaluation: Evaluation) -> int:
    """Return the index of the curve that is nearest to the threshold."""
    return int(np.argmin(np.abs(THRESHOLDS - evaluation.threshold)))


def _precision_recall(evaluation: Evaluation) -> Chart:
    curve, chosen = evaluation.curve, _chosen(evaluation)
    precision, recall = curve.precision[chosen], curve.recall[chosen]

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot(curve.recall, curve.precision, color=theme.first)
        label = f"threshold {evaluation.threshold:g}: precision {precision:.3f}, recall {recall:.3f}"
        axes.plot(recall, precision, color=theme.mark, marker="D", ms=8, ls="", label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))

    alt = f"Precision over recall of all pixels; at the threshold {precision:.3f} and {recall:.3f}"
    return _chart("precision_recall", "Precision and recall over thresholds", alt, draw)


def _dice_over_thresholds(evaluation: Evaluation) -> Chart:
    dice, chosen = evaluation.curve.dice, _chosen(evaluation)
    best = int(np.argmax(dice))

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot(THRESHOLDS, dice, color=theme.first)
        label = f"threshold {evaluation.threshold:g}: {dice[chosen]:.3f}"
        axes.plot(THRESHOLDS[chosen], dice[chosen], color=theme.mark, marker="D", ms=8, ls="", label=label)
        axes.set(xlabel="threshold", ylabel="mean Dice", xlim=(0, 1), ylim=(0, 1.02))

    at_best = f"at best {dice[best]:.3f} at {THRESHOLDS[best]:g}"
    alt = f"Mean Dice over thresholds: {dice[chosen]:.3f} at the chosen one, {at_best}"
    return _chart("dice_thresholds", "Mean Dice over thresholds", alt, draw)


def _dice_of_images(evaluation: Evaluation) -> Chart:
    values = [image.small.dice for image in evaluation.images]

    def draw(axes: Axes, theme: Theme) -> None:
        axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=theme.first, edgecolor=theme.paper)
        median = float(np.median(values))
        axes.axvline(median, color=theme.mark, linewidth=2, label=f"median {median:.3f}")
        axes.set(xlabel="Dice of an image", ylabel="images", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    low = sum(value < 0.5 for value in values)
    alt = f"Histogram of the images' Dice, median {np.median(values):.3f}; {low} of {len(values)} below 0.5"
    return _chart("dice_images", "Dice of the images", alt, draw)


def _dice_by_size(evaluation: Evaluation) -> Chart:
    shown = [image for image in evaluation.images if image.foreground > 0]

    def draw(axes: Axes, theme: Theme) -> None:
        shares, dice = [image.foreground for image in shown], [image.small.dice for image in shown]
        axes.scatter(shares, dice, s=18, color=theme.first, alpha=0.65, linewidths=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.3%}".rstrip("0%").rstrip(".") + " %"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda share, _: ""))  # noqa: ARG005
        axes.set(xlabel="share of the image that is foreground", ylabel="Dice", ylim=(-0.02, 1.02))

    alt = f"Dice over the object's share of the image, {pluralize(len(shown), 'image')}"
    return _chart("dice_size", "Dice by object size", alt, draw)


def _reliability(evaluation: Evaluation) -> Chart:
    error = f"{evaluation.reliability['ECE'].value:.4f}"
    pixels, probability, foreground = np.sum([image.bins for image in evaluation.images], axis=0)
    filled = pixels > 0

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.ink, ls=":", lw=1.2, label="perfect")
        predicted, actual = (sums[filled] / pixels[filled] for sums in (probability, foreground))
        axes.plot(predicted, actual, color=theme.first, marker="o", ms=5, label=f"ECE {error}")
        axes.set(xlabel="predicted probability", ylabel="share of foreground", xlim=(0, 1.02), ylim=(0, 1.02))

    alt = f"Share of foreground over the probability; expected calibration error {error}"
    return _chart("reliability", "Reliability of the probabilities", alt, draw)
