"""`condseg finetune`: a folder of images and masks in, a checkpoint out."""

from __future__ import annotations

import argparse
from dataclasses import fields

from condseg_sdk.training.settings import FinetuneSettings

HELP = "train on a folder of images and masks"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a network on images/ and masks/ in a folder; run again to continue after an interruption."
    )
    parser.add_argument("data", help="folder with images/ and masks/, same names")
    parser.add_argument("--out", required=True, help="folder of the run; the checkpoint appears in OUT/checkpoint")
    parser.add_argument("--train-list", help="text file with the names to train on, one a line (default: all)")
    for field in fields(FinetuneSettings):
        kind = {"str": str, "float": float}.get(str(field.type), int)
        help_text = f"(default: {'--image-size' if field.default is None else field.default})"
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, help=help_text)


def run(options: argparse.Namespace) -> int:
    from condseg_sdk import finetune

    settings = FinetuneSettings(**{field.name: getattr(options, field.name) for field in fields(FinetuneSettings)})
    result = finetune(options.data, output_dir=options.out, train_list=options.train_list, settings=settings)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
    print(f"{result.checkpoint_dir}: {figures} (on the held-out part)")
    return 0
