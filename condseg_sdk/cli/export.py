"""`condseg export`: a checkpoint as one ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.cli import interrupts
from condseg_sdk.cli.outputs import add_overwrite
from condseg_sdk.provenance import check_replaced


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write a checkpoint as one ONNX file, verified against PyTorch; `predict --model` takes it."
    parser.add_argument("model", help="name, folder or org/name")
    parser.add_argument("out", help="file to write, ends in .onnx")
    parser.add_argument(
        "--precision", choices=get_args(OnnxPrecision), default="float32", help="(default: %(default)s)"
    )
    parser.add_argument("--static", action="store_true", help="one image at the checkpoint's size, nothing free")
    parser.add_argument("--branch-uncertainty", action="store_true", help="include the map of the uncertainty branch")
    parser.add_argument(
        "--preprocessing",
        action="store_true",
        help="a graph for programs without this package: uint8 RGB image of any size in, probability out",
    )
    parser.add_argument("--calibration", help="folder or glob of images, for int8")
    parser.add_argument("--opset", type=int, default=18, help="of ONNX (default: %(default)s)")
    parser.add_argument("--images", help="folder or glob of images to verify with")
    parser.add_argument("--no-verify", action="store_true", help="do not compare with PyTorch")
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    from condseg_sdk.predictor import Predictor

    check_replaced([Path(options.out)], overwrite=options.overwrite)
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    with interrupts.raising(f"{options.out} was not written"):
        report = predictor.export_onnx(
            options.out,
            precision=options.precision,
            dynamic=not options.static,
            branch_uncertainty=options.branch_uncertainty,
            preprocessing=options.preprocessing,
            opset=options.opset,
            verify=not options.no_verify,
            images=options.images,
            calibration=options.calibration,
        )
    print(report)
    return 0
