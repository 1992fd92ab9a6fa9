"""Writes report.html and its images for an evaluation or a finished training run."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from condseg_sdk.data import Pair, load_pair
from condseg_sdk.errors import OptionError
from condseg_sdk.evaluation.card_section import extend_card
from condseg_sdk.evaluation.evaluate import evaluate
from condseg_sdk.evaluation.image_result import ImageResult
from condseg_sdk.evaluation.result import Evaluation
from condseg_sdk.files import atomic_folder, check_replaceable, make_folder, real_path, write_bytes
from condseg_sdk.json_files import read_json_object
from condseg_sdk.predictor import Predictor
from condseg_sdk.provenance import is_ours, seal_png, seal_text
from condseg_sdk.report.charts import Chart, evaluation_charts, training_charts
from condseg_sdk.report.overlays import error_overlay
from condseg_sdk.report.page import Overlay, Section, page
from condseg_sdk.words import pluralize

__all__ = ["check_report_folder", "write_evaluation_report", "write_report"]

REPORT = "report.html"
PICTURES = "report"
EACH = 3  # number of images in each group: best, median and worst
SELECTED = (
    "Epoch and threshold were chosen on these same images, so the metrics are slightly optimistic. For metrics to "
    "publish, evaluate on images that training has not seen"
)


def write_report(
    run_folder: str | os.PathLike[str],
    *,
    pairs: Sequence[Pair],
    history: Sequence[Mapping[str, float]],
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Evaluate the checkpoint of a training run and write a report of the run.

    The run's folder gets report.html, which contains everything and loads nothing; report/ with its images as PNG;
    per_image.csv and summary.json; and a section "Evaluation" in the checkpoint's model card.

    Args:
        run_folder: Folder of a finished run of `finetune`. The command in the report names its checkpoint by this path.
        pairs: Pairs of the validation split, on which the threshold was chosen; the report says so.
        history: Metrics of each epoch, as in `FinetuneResult.history`.
        device: Device on which the network runs.
        seed: Seed of the confidence intervals.

    Returns:
        The path of report.html.

    Raises:
        OptionError: The folder has no finished run.
        OutputError: The folder cannot be written to.
        DatasetError: An image and its mask do not fit together.
        ImageError: An image or a mask cannot be read.

    Example:
        >>> from condseg_sdk import open_dataset
        >>> pairs = open_dataset("my_dataset").validation
        >>> write_report("runs/finished", pairs=pairs, history=[], device="cpu").name
        'report.html'
    """
    folder = Path(run_folder)
    checkpoint = folder / "checkpoint"
    run = read_json_object(folder / "settings.json", error=OptionError, remedy="pass the folder of a finished run")
    predictor = Predictor.from_pretrained(checkpoint, device=device)
    command = shlex.join(["condseg", "evaluate", str(checkpoint), "TEST_DATA", "--report", "--out", "FOLDER"])
    evaluation = evaluate(
        predictor,
        list(pairs),
        branch_uncertainty=True,
        seed=seed,
        model_name=real_path(folder).name,
        data_name="the run's validation split",
    )
    evaluation.save(folder)
    path = _write(
        folder,
        evaluation,
        predictor,
        title=f"Training run: {real_path(folder).name}",
        selected_on=f"{SELECTED}: {command}",
        training=training_charts(history),
        sections=[*_run_sections(folder, run, history), _environment(run.get("environment", {}))],
    )
    # The card may be published, so it contains no paths of this machine.
    extend_card(checkpoint / "README.md", evaluation, note=f"{SELECTED}.")
    return path


def write_evaluation_report(
    folder: str | os.PathLike[str], evaluation: Evaluation, *, predictor: Predictor, overwrite: bool = False
) -> Path:
    """Write report.html and report/ for an evaluation.

    Args:
        folder: Folder of the report, which is created if it is missing.
        evaluation: Evaluation of `predictor`, whose images are still on disk.
        predictor: Predictor that segments the few shown images again.
        overwrite: As in `check_report_folder`.

    Returns:
        The path of report.html.

    Raises:
        OutputError: The folder cannot be written to.
        ImageError: An image can no longer be read.

    Example:
        >>> from condseg_sdk import evaluate
        >>> evaluation = evaluate(predictor, "my_test_set")
        >>> write_evaluation_report("metrics", evaluation, predictor=predictor).name
        'report.html'
    """
    settings = {"model": evaluation.model, "data": evaluation.data, "threshold": f"{evaluation.threshold:g}"}
    settings |= {name: _plain(value) for name, value in asdict(evaluation.options).items()}
    settings |= {
        "seconds": f"{evaluation.seconds:.1f}, prediction and evaluation",
        "command": evaluation.command or "-",
    }
    return _write(
        make_folder(folder),
        evaluation,
        predictor,
        title=f"Evaluation of {evaluation.model}",
        selected_on=None,
        training=[],
        sections=[Section("Configuration", list(settings.items())), _environment(evaluation.environment)],
        overwrite=overwrite,
    )


def check_report_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check, before any work, that report/ in a folder has only files of an earlier report.

    Args:
        folder: Folder of report/.
        overwrite: Whether to replace other PNG files in it, such as edited files or files of an older release.

    Raises:
        OutputError: The folder contains other files.
    """
    check_replaceable(Path(folder, PICTURES), _replaced(Path(folder, PICTURES), overwrite))


def _replaced(folder: Path, overwrite: bool) -> list[str]:
    """Return the names that a new report may replace: the images of an earlier one."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return [entry.name for entry in entries if is_ours(entry) or (overwrite and entry.suffix == ".png")]


def _write(
    folder: Path,
    evaluation: Evaluation,
    predictor: Predictor,
    *,
    training: Sequence[Chart],
    overwrite: bool = False,
    **content: Any,
) -> Path:
    charts = evaluation_charts(evaluation)
    overlays = {
        f"{group.lower()}_{rank}": Overlay(group, result, _overlay(predictor, evaluation, result))
        for group, results in _examples(evaluation).items()
        for rank, result in enumerate(results, 1)
    }
    html = page(evaluation, training=training, charts=charts, overlays=list(overlays.values()), **content)

    def write_pictures(part: Path) -> None:
        for chart in (*training, *charts):
            (part / f"{chart.name}.png").write_bytes(seal_png(chart.light))
        for name, overlay in overlays.items():
            file = io.BytesIO()
            overlay.image.save(file, format="PNG")
            (part / f"{name}.png").write_bytes(seal_png(file.getvalue()))

    shown = folder / PICTURES
    atomic_folder(shown, write_pictures, replaces=_replaced(shown, overwrite))
    return write_bytes(folder / REPORT, seal_text(html))


def _examples(evaluation: Evaluation) -> dict[str, list[ImageResult]]:
    """Choose the worst, median and best images by Dice at 256x256, no image twice."""
    ranked = sorted(evaluation.images, key=lambda image: (image.small.dice, image.pair.name))
    each = min(EACH, len(ranked) // 3)
    if each == 0:
        return {"Worst": ranked[:1], "Best": ranked[1:]} if len(ranked) > 1 else {"Median": ranked}
    middle = (len(ranked) - each) // 2
    return {"Best": ranked[: -each - 1 : -1], "Median": ranked[middle : middle + each], "Worst": ranked[:each]}


def _overlay(predictor: Predictor, evaluation: Evaluation, result: ImageResult) -> Image.Image:
    options = evaluation.options
    image, target = load_pair(result.pair, bits=result.bits)
    return error_overlay(
        image, predictor(image, threshold=evaluation.threshold, tta=options.tta, tile=options.tile).mask, target
    )


def _run_sections(folder: Path, run: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[Section]:
    split, reasons = run.get("split", {}), run.get("reasons", {})
    data = [["layout", str(split.get("layout", "-"))]]
    data += [
        [name, pluralize(len(split[name]), "image")] for name in ("train", "validation", "test") if split.get(name)
    ]
    check = folder / "check.txt"
    checked = check.read_text(encoding="utf-8") if check.exists() else ""
    settings = [[name, _plain(value), str(reasons.get(name, ""))] for name, value in run.get("settings", {}).items()]
    seconds = {stage: sum(row["seconds"] for row in history if row["stage"] == stage) for stage in (1, 2)}
    epochs = {stage: sum(row["stage"] == stage for row in history) for stage in (1, 2)}
    time = [[f"stage {stage}", f"{epochs[stage]} epochs, {_duration(seconds[stage])}"] for stage in (1, 2)]
    return [
        Section("Data", data, "What the check of the data found", checked),
        Section("Configuration", settings),
        Section("Time", [row for row, count in zip(time, epochs.values(), strict=True) if count]),
    ]


def _environment(environment: Mapping[str, str]) -> Section:
    return Section("Environment", [[name, str(value)] for name, value in environment.items()])


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
