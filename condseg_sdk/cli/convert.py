"""`condseg convert`: converts a checkpoint of the authors' code to a checkpoint folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.outputs import add_overwrite
from condseg_sdk.cli.types import integer, real
from condseg_sdk.errors import CheckpointError, CondsegError, OutputError
from condseg_sdk.images.load import ColorOrder
from condseg_sdk.provenance import is_ours


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `condseg convert`."""
    parser.description = (
        "Convert a .pth file of the authors' code to a checkpoint folder. Nothing in the file is executed, and every "
        "tensor must fit."
    )
    add = parser.add_argument
    add("source", metavar="SRC.pth", help="file written by torch.save")
    add("out", metavar="OUT", help="folder to write")
    add("--network", required=True, choices=("r50", "pvt"), help="ResNet-50 or PVTv2-b2")
    add(
        "--color-order",
        required=True,
        choices=get_args(ColorOrder),
        help="order of the channels in training: bgr before November 2025, rgb since; the file does not say which",
    )
    add(
        "--size",
        type=integer,
        default=256,
        help="height and width of the training images in pixels (default: %(default)s)",
    )
    add(
        "--threshold",
        type=real,
        default=0.5,
        help="lowest probability at which a pixel belongs to the mask (default: %(default)s)",
    )
    add("--data", help="data that the weights were trained on, for the model card")
    add("--license", help="SPDX identifier in lower case, for the model card")
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Run `condseg convert` and return its exit code."""
    from condseg_sdk.weights.convert import convert_checkpoint

    if not options.overwrite:
        _check_own(Path(options.out), Path(options.source).name)
    facts = {"data": options.data, "license": options.license}
    with interrupts.raising(f"{options.out} was not written"):
        folder = convert_checkpoint(
            options.source,
            options.out,
            network=options.network,
            color_order=options.color_order,
            size=options.size,
            threshold=options.threshold,
            provenance={key: value for key, value in facts.items() if value is not None},
        )
    print(f"{folder}: try it with `condseg predict IMAGE --model {options.out}`")
    return 0


def _check_own(folder: Path, source: str) -> None:
    """Refuse to replace a checkpoint that did not come from this file, or whose card was edited since.

    Raises:
        OutputError: The checkpoint already exists.
    """
    from condseg_sdk.checkpoints.card import model_card
    from condseg_sdk.checkpoints.config import CheckpointConfig
    from condseg_sdk.json_files import read_json_object

    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        config = CheckpointConfig.from_dict(
            read_json_object(folder / "config.json", error=CheckpointError, remedy="convert it again")
        )
        card = (folder / "README.md").read_text(encoding="utf-8")
        title = next((line[2:] for line in card.splitlines() if line.startswith("# ")), "")
        own = config.provenance.get("converted_from") == source and card == model_card(config, name=title)
    except (CondsegError, OSError, ValueError):
        own = False
    onnx = folder / "model.onnx"
    if not own or (onnx.exists() and not is_ours(onnx)):
        raise OutputError(
            f"{folder} contains something other than what `condseg convert` made of {source}; choose a new folder, or "
            "add --overwrite to replace a checkpoint",
            path=folder,
        )
