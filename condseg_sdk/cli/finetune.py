"""`condseg finetune`: images and masks in, a checkpoint out. A flag for each of `FinetuneSettings` and of the data."""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.outputs import check_output_folder
from condseg_sdk.errors import OptionError
from condseg_sdk.field_of_view import FieldOfView
from condseg_sdk.json_files import read_json_object
from condseg_sdk.training.config import HELP as SETTINGS_HELP
from condseg_sdk.training.config import Augmentation, FinetuneSettings, Precision, Schedule

DATA = {
    "masks": "folder of masks, or annotation file, that stands apart from the images",
    "train_list": "text file with the names to train on, one a line",
    "val_list": "the same for the validation part",
    "groups": "CSV column, or regular expression whose first bracket finds the group (patient) in a name",
}
CARD = {
    "license": "of the weights, for the model card: a name of the Hub's, such as cc-by-4.0",
    "attribution": "whom the model card names for the data",
}
CHOICES: dict[str, Any] = {
    "schedule": Schedule,
    "precision": Precision,
    "augmentation": Augmentation,
    "field_of_view": FieldOfView,
}
KINDS = {"int | None": int, "int": int, "float | None": float, "float": float}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check a set of images and masks, then train on it: stage 2 of the paper, after stage 1 with --stage1-epochs. "
        "What is not said is chosen from data and machine, and printed with its reason."
    )
    parser.add_argument("data", help="images and masks: a folder, a CSV or annotation file (docs/data.md)")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", help="folder of the run; the checkpoint appears in OUT/checkpoint")
    target.add_argument("--check", action="store_true", help="stop after the check of the data, exit code 2 on errors")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT from its last saved epoch")
    parser.add_argument("--no-progress", action="store_true", help="a line an epoch instead of bars")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    for name, text in {**DATA, **CARD}.items():
        parser.add_argument(_flag(name), help=text)
    for field in fields(FinetuneSettings):
        kind = str(field.type)
        shown = "" if field.default is None or kind == "bool" else f" (default: {field.default})"
        options: dict[str, Any] = {"help": SETTINGS_HELP[field.name] + shown}
        if kind == "bool":
            options["action"] = "store_true"
        else:
            options |= {"default": field.default, "type": KINDS.get(kind, str)}
        if field.name in CHOICES:
            options["choices"] = get_args(CHOICES[field.name])
        parser.add_argument(_flag(field.name), **options)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run(options: argparse.Namespace) -> int:
    from condseg_sdk import finetune
    from condseg_sdk.training.finetune import check

    data = {name: getattr(options, name) for name in DATA}
    settings = {field.name: getattr(options, field.name) for field in fields(FinetuneSettings)}
    settings["network"] = _network(options.network)
    if options.check:
        FinetuneSettings(**settings)
        _, report = check(options.data, **data, validation=options.validation, seed=options.seed, bits=options.bits)
        print(report)
        return 2 if report.errors else 0
    if options.no_progress:
        logging.getLogger("condseg_sdk").setLevel(logging.INFO)
    check_output_folder(Path(options.out))
    with interrupts.raising(f"continue the run in {options.out} with the same command and --resume"):
        result = finetune(
            options.data,
            output_dir=options.out,
            resume=options.resume,
            progress=not options.no_progress,
            report=not options.no_report,
            provenance={name: value for name in CARD if (value := getattr(options, name)) is not None} or None,
            **data,
            **settings,
        )
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
    print(f"{result.checkpoint_dir}: {figures} (on the validation part)")
    return 0


def _network(value: str | None) -> Any:
    """A name, or a JSON file with arguments of `ConDSeg`."""
    if value is None or not value.endswith(".json"):
        return value
    return read_json_object(value, error=OptionError, remedy="give a JSON file with arguments of ConDSeg")
