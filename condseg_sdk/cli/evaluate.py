"""`condseg evaluate`: evaluates a checkpoint on images with masks."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.device import add_device
from condseg_sdk.cli.outputs import add_overwrite, check_output_folder
from condseg_sdk.cli.types import integer, real
from condseg_sdk.errors import CondsegError, OptionError

CARD = "model_card.md"
SPLITS = ("train", "validation", "test")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Measure a checkpoint on images with masks: overlap, contours, calibration; means with confidence intervals, "
        "at 256x256 as in the paper and at the images' own size (docs/evaluation.md)."
    )
    add = parser.add_argument
    add("model", help="name, folder, org/name or .onnx file")
    add("data", help="images and masks: a folder, a CSV or annotation file (docs/data.md)")
    add("--masks", help="folder of masks, or annotation file, outside of the images' folder")
    add("--classes", nargs="+", metavar="NAME", help="classes that are foreground (default: all)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--list", metavar="FILE", help="text file with the names to evaluate, one per line")
    which.add_argument(
        "--split", choices=SPLITS, help="only this split, as defined by the data or the checkpoint's run"
    )
    add("--group-by", metavar="GROUP", help="CSV column, or regular expression whose first group finds the hospital")
    add("--out", type=Path, help="folder for per_image.csv, summary.json and model_card.md")
    add("--report", action="store_true", help="also write report.html and its images to OUT")
    add("--threshold", type=real, help="probability in (0, 1) (default: the checkpoint's)")
    add("--min-score", type=real, metavar="SCORE", help="lowest score of an image, below which its mask is empty")
    add("--tta", action="store_true", help="average over four flips of the image")
    add("--tile", type=integer, metavar="PIXELS", help="cut large images into tiles of this side")
    add("--bits", type=integer, help="bits in use in 16-bit images (default: found from all of them)")
    add("--branch-uncertainty", action="store_true", help="also measure the map of the uncertainty branch")
    add(
        "--spacing",
        type=real,
        nargs="+",
        metavar="MM",
        help="distance between pixels, one or two numbers: adds distances in mm",
    )
    add("--batch-size", type=integer, default=8, help="number of images processed together (default: %(default)s)")
    add(
        "--seed",
        type=integer,
        default=0,
        help="seed of the confidence intervals, 0 to 4294967295 (default: %(default)s)",
    )
    add_device(parser)
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        from condseg_sdk.evaluation.card_section import evaluation_card
        from condseg_sdk.evaluation.evaluate import evaluate
        from condseg_sdk.evaluation.result import FILES
        from condseg_sdk.report import check_report_folder, write_evaluation_report
    except ModuleNotFoundError as error:
        raise CondsegError(f"evaluate needs {error.name}: pip install 'condseg_sdk[train]'") from error
    from tqdm import tqdm

    from condseg_sdk.files import write_bytes
    from condseg_sdk.predictor import Predictor
    from condseg_sdk.provenance import check_replaced, seal_text

    if options.report and options.out is None:
        raise OptionError("--report needs a folder to write to: add --out FOLDER")
    if options.out is not None:
        check_output_folder(options.out)
        names = [*FILES.values(), CARD, *(["report.html"] if options.report else [])]
        check_replaced([options.out / name for name in names], overwrite=options.overwrite)
    if options.report:
        check_report_folder(options.out, overwrite=options.overwrite)
    predictor = Predictor.from_pretrained(options.model, device=options.device)
    with interrupts.deferred() as stop, tqdm(unit="image", delay=0.1) as bar:
        evaluation = evaluate(
            predictor,
            options.data,
            masks=options.masks,
            classes=options.classes,
            names=options.list,
            split=options.split,
            group_by=options.group_by,
            threshold=options.threshold,
            min_score=options.min_score,
            tta=options.tta,
            tile=options.tile,
            branch_uncertainty=options.branch_uncertainty,
            bits=options.bits,
            spacing=options.spacing,
            batch_size=options.batch_size,
            seed=options.seed,
            model_name=Path(options.model).name if Path(options.model).exists() else options.model,
            command=_command(options),
            on_start=bar.reset,
            on_result=lambda _: _count(bar, stop),
        )
    with interrupts.raising():
        if options.out is not None:
            evaluation.save(options.out)
            write_bytes(options.out / CARD, seal_text(evaluation_card(evaluation)))
        report = (
            write_evaluation_report(options.out, evaluation, predictor=predictor, overwrite=options.overwrite)
            if options.report
            else None
        )
    print(evaluation)
    if report is not None:
        print(report)
    return 0


def _count(bar: Any, stop: interrupts.Stop) -> None:
    bar.update()
    if stop.requested:
        bar.close()
        raise KeyboardInterrupt(f"{bar.n} of {bar.total} images were evaluated, and nothing was written")


def _command(options: argparse.Namespace) -> str:
    """Return the command that reproduces the result, without options for output and device."""
    words = ["condseg", "evaluate", options.model, options.data]
    given: dict[str, Any] = {
        "masks": options.masks,
        "classes": options.classes,
        "list": options.list,
        "split": options.split,
        "group-by": options.group_by,
    }
    given |= {"threshold": options.threshold, "min-score": options.min_score}
    given |= {"tile": options.tile, "bits": options.bits, "spacing": options.spacing}
    given |= {"seed": options.seed or None}
    for name, value in given.items():
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    words += [f"--{name.replace('_', '-')}" for name in ("tta", "branch_uncertainty") if getattr(options, name)]
    return shlex.join(words)
