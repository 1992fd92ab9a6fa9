"""`condseg finetune`: trains a checkpoint on images and masks. Each setting of `FinetuneConfig` is a flag."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.outputs import check_output_folder
from condseg_sdk.cli.types import integer, real
from condseg_sdk.errors import OptionError
from condseg_sdk.json_files import read_json_object
from condseg_sdk.training.config import FinetuneConfig, Setting, settings

DATA = {
    "masks": "Folder of masks, or annotation file, separate from the images.",
    "train_list": "Text file with the names of the training split, one per line.",
    "val_list": "Text file with the names of the validation split, one per line.",
    "group_by": "CSV column, or regular expression whose first group finds the pair's group (patient) in its name.",
}
CARD = {
    "license": "License of the weights for the model card: an identifier of the Hub, such as cc-by-4.0.",
    "attribution": "Credit for the data in the model card.",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = (
        "Check a set of images and masks, then train on it: stage 2 of the paper, after stage 1 with --stage1-epochs. "
        "Settings without a value are chosen from data and machine, and printed with the reason."
    )
    add = parser.add_argument
    add("data", help="Images and masks: a folder, a CSV or annotation file (docs/data.md).")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", help="Folder of the run; the checkpoint is written to OUT/checkpoint.")
    target.add_argument("--check", action="store_true", help="Stop after the check of the data; exit code 2 on errors.")
    add("--resume", action="store_true", help="Continue the run in OUT from its last saved epoch.")
    add("--no-progress", action="store_true", help="Print one line per epoch instead of progress bars.")
    add("--no-report", action="store_true", help="Write no report.html.")
    add("--classes", nargs="+", metavar="NAME", help="Classes that are foreground (default: all).")
    for name, text in {**DATA, **CARD}.items():
        add(_flag(name), help=text)
    groups = {setting.section: parser.add_argument_group(setting.section.lower()) for setting in settings().values()}
    for setting in settings().values():
        groups[setting.section].add_argument(_flag(setting.name), **_argument(setting))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _argument(setting: Setting) -> dict[str, Any]:
    """Return the options of `add_argument` for a setting."""
    if bool in setting.types:
        return {"action": "store_true", "help": setting.help}
    kinds = {int: integer, float: real}
    types = [kinds[kind] for kind in kinds if kind in setting.types and str not in setting.types]
    return {
        "type": types[0] if types else str,
        "default": setting.default,
        "choices": setting.choices or None,
        "help": setting.description,
    }


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from condseg_sdk import check_dataset, finetune, open_dataset
    from condseg_sdk.training.base import base_images
    from condseg_sdk.training.distributed import is_rank_zero
    from condseg_sdk.training.run_folder import RunFolder

    given = {name: getattr(options, name) for name in settings()}
    config = FinetuneConfig(**{**given, "network": _network(options.network)})
    if options.resume and not options.check:
        config = RunFolder(Path(options.out)).resumed(config, resume=True, first=is_rank_zero())
    dataset = open_dataset(
        options.data,
        **{name: getattr(options, name) for name in DATA},
        classes=options.classes,
        val_fraction=config.val_fraction,
        seed=config.seed,
    )
    if options.check:
        report = check_dataset(dataset, bits=config.bits, trained_on=base_images(config.base, config.network))
        print(report)
        return 2 if report.errors else 0
    if options.no_progress:
        logging.getLogger("condseg_sdk").setLevel(logging.INFO)
    check_output_folder(Path(options.out))
    with interrupts.raising(f"continue the run in {options.out} with the same command and --resume"):
        result = finetune(
            dataset,
            output_dir=options.out,
            config=config.override(val_fraction=None),
            resume=options.resume,
            progress=not options.no_progress,
            report=not options.no_report,
            provenance={name: value for name in CARD if (value := getattr(options, name)) is not None} or None,
        )
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
    print(f"{result.checkpoint_dir}: {metrics} (on the validation split)")
    return 0


def _network(value: str | None) -> Any:
    """Return the name of a network, or the arguments of `ConDSeg` in a JSON file."""
    if value is None or not value.endswith(".json"):
        return value
    return read_json_object(value, error=OptionError, remedy="pass a JSON file with arguments of ConDSeg")
