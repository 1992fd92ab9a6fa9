"""`condseg convert`: a checkpoint of the authors' code as one of ours."""

from __future__ import annotations

import argparse
from typing import get_args

from condseg_sdk.images import ColorOrder



def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a checkpoint folder of a .pth file of the authors' code. "
        "Nothing in the file is executed, and every tensor must fit."
    )
    parser.add_argument("source", metavar="SRC.pth", help="what torch.save wrote")
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--network", required=True, choices=("r50", "pvt"), help="ResNet-50 or PVTv2-b2")
    parser.add_argument(
        "--color-order",
        required=True,
        choices=get_args(ColorOrder),
        help="of the channels in training: bgr before November 2025, rgb since; the file does not tell",
    )
    parser.add_argument("--size", type=int, default=256, help="side of the training images (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.5, help="of the probability (default: %(default)s)")
    parser.add_argument("--data", help="what the weights have seen, for the model card")
    parser.add_argument("--license", help="SPDX identifier in lower case, for the model card")


def run(options: argparse.Namespace) -> int:
    from condseg_sdk.weights.convert import convert_checkpoint

    facts = {"data": options.data, "license": options.license}
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
