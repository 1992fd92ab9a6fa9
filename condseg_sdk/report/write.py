"""report.html and its pictures, of an evaluation or of a finished training run."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from condseg_sdk.data import Pair, load_pair
from condseg_sdk.errors import OptionError
from condseg_sdk.evaluation.card_section import extend_card
from condseg_sdk.evaluation.evaluate import evaluate
from condseg_sdk.evaluation.result import Evaluation, ImageResult
from condseg_sdk.files import atomic_folder, check_replaceable, make_folder, write_bytes
from condseg_sdk.images.load import find_bits
from condseg_sdk.json_files import read_json_object
from condseg_sdk.provenance import is_ours, seal_png, seal_text
from condseg_sdk.report.charts import Chart, evaluation_charts, training_charts
from condseg_sdk.report.overlays import error_overlay
from condseg_sdk.report.page import Picture, Section, page

if TYPE_CHECKING:
    from condseg_sdk.predictor import Predictor

__all__ = ["check_report_folder", "write_evaluation_report", "write_report"]

REPORT = "report.html"
PICTURES = "report"
EACH = 3  # pictures of the best, of the median and of the worst images
SELECTED = (
    "Epoch and threshold were chosen on these same images, so the figures are a little too good. For figures to "
    "publish, measure on images that played no part"
)


def write_report(
    run_folder: str | os.PathLike[str],
    *,
    pairs: Sequence[Pair],
    history: Sequence[Mapping[str, float]],
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Measure a run's checkpoint and write what a person wants to know about the run.

    Leaves in the run's folder: report.html, which holds everything and loads nothing; report/ with its pictures as PNG;
    per_image.csv and summary.json; and a section "Evaluation" in the checkpoint's model card.

    Args:
        run_folder: of a finished run of `finetune`; the page's command names its checkpoint by this path.
        pairs: the validation part, on which the threshold was chosen; the page says so.
        history: Metrics of each epoch, as `FinetuneResult.history` has them.
        device: where the network runs.
        seed: of the confidence intervals.

    Returns:
        The path of report.html.

    Raises:
        OptionError: the folder holds no finished run.
        OutputError: the folder cannot be written to.
        DatasetError, ImageError: a pair cannot be read.

    Example:
        >>> write_report("runs/mine", pairs=dataset.validation, history=result.history)  # doctest: +SKIP
        PosixPath('runs/mine/report.html')
    """
    from condseg_sdk.predictor import Predictor

    folder = Path(run_folder)
    checkpoint = folder / "checkpoint"
    run = read_json_object(folder / "settings.json", error=OptionError, remedy="give the folder of a finished run")
    predictor = Predictor.from_pretrained(checkpoint, device=device)
    command = shlex.join(["condseg", "evaluate", str(checkpoint), "TEST_DATA", "--report", "--out", "FOLDER"])
    evaluation = evaluate(
        predictor,
        list(pairs),
        branch_uncertainty=True,
        seed=seed,
        model_name=folder.resolve().name,
        data_name="the run's validation part",
    )
    evaluation.save(folder)
    path = _write(
        folder,
        evaluation,
        predictor,
        title=f"Training run: {folder.resolve().name}",
        selected_on=f"{SELECTED}: {command}",
        training=training_charts(history),
        sections=[*_run_sections(folder, run, history), _environment(run.get("environment", {}))],
    )
    # No path of this machine: the card may be published.
    extend_card(checkpoint / "README.md", evaluation, note=f"{SELECTED}.")
    return path


def write_evaluation_report(
    folder: str | os.PathLike[str], evaluation: Evaluation, *, predictor: Predictor, overwrite: bool = False
) -> Path:
    """Write report.html and report/ for an evaluation.

    Args:
        folder: where to; made where it is not there.
        evaluation: of `predictor`, whose images are still on disk.
        predictor: segments the few images that are shown once more.
        overwrite: As in `check_report_folder`.

    Returns:
        The path of report.html.

    Raises:
        OutputError: the folder cannot be written to.
        ImageError: an image cannot be read any more.
    """
    settings = {"model": evaluation.model, "data": evaluation.data, "threshold": f"{evaluation.threshold:g}"}
    settings |= {name: _plain(value) for name, value in asdict(evaluation.options).items()}
    settings |= {"seconds": f"{evaluation.seconds:.1f}, predicting and measuring", "command": evaluation.command or "-"}
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
    """Refuse a folder whose report/ holds files that no report has made, before the work.

    Args:
        folder: Where report/ is, or will be.
        overwrite: Replace other PNG files in it, too, such as those of an older release or edited ones.

    Raises:
        OutputError: There is such a file.
    """
    check_replaceable(Path(folder, PICTURES), _replaced(Path(folder, PICTURES), overwrite))


def _replaced(pictures: Path, overwrite: bool) -> list[str]:
    """The names that a new report may replace: the images of an earlier one."""
    entries = pictures.iterdir() if pictures.is_dir() else ()
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
    bits = _bits(predictor, evaluation)
    pictures = {
        f"{group.lower()}_{rank}": Picture(group, result, _overlay(predictor, evaluation, result, bits))
        for group, results in _examples(evaluation).items()
        for rank, result in enumerate(results, 1)
    }
    html = page(evaluation, training=training, charts=charts, pictures=list(pictures.values()), **content)

    def write_pictures(part: Path) -> None:
        for chart in (*training, *charts):
            (part / f"{chart.name}.png").write_bytes(seal_png(chart.light))
        for name, picture in pictures.items():
            file = io.BytesIO()
            picture.image.save(file, format="PNG")
            (part / f"{name}.png").write_bytes(seal_png(file.getvalue()))

    shown = folder / PICTURES
    atomic_folder(shown, write_pictures, replaces=_replaced(shown, overwrite))
    return write_bytes(folder / REPORT, seal_text(html))


def _examples(evaluation: Evaluation) -> dict[str, list[ImageResult]]:
    """The worst, median and best images by Dice at 256x256, no image twice."""
    ranked = sorted(evaluation.images, key=lambda image: (image.small.dice, image.pair.name))
    each = min(EACH, len(ranked) // 3)
    if each == 0:
        return {"Worst": ranked[:1], "Best": ranked[1:]} if len(ranked) > 1 else {"Median": ranked}
    middle = (len(ranked) - each) // 2
    return {"Best": ranked[: -each - 1 : -1], "Median": ranked[middle : middle + each], "Worst": ranked[:each]}


def _bits(predictor: Predictor, evaluation: Evaluation) -> int | None:
    """The bits with which the evaluation read images of 16-bit values, so that the pictures show what was measured."""
    bits = evaluation.options.bits or predictor.preprocessing.bits
    if bits is None and (depth := find_bits(image.pair.image for image in evaluation.images)) is not None:
        bits = depth.bits
    return bits


def _overlay(predictor: Predictor, evaluation: Evaluation, result: ImageResult, bits: int | None) -> Image.Image:
    options = evaluation.options
    image, truth = load_pair(result.pair, bits=bits)
    return error_overlay(
        image, predictor(image, threshold=evaluation.threshold, tta=options.tta, tile=options.tile).mask, truth
    )


def _run_sections(folder: Path, run: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[Section]:
    split, reasons = run.get("split", {}), run.get("reasons", {})
    data = [["layout", str(split.get("layout", "-"))]]
    data += [[part, f"{len(split[part])} images"] for part in ("train", "validation", "test") if split.get(part)]
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
