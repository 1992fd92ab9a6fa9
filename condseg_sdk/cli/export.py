"""`condseg export`: exports a checkpoint to one ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.cli import interrupts
from condseg_sdk.cli.outputs import add_overwrite
from condseg_sdk.cli.types import integer
from condseg_sdk.errors import OptionError
from condseg_sdk.export.triton import MODEL_FILE, write_triton_config
from condseg_sdk.files import make_folder
from condseg_sdk.provenance import check_replaced


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `condseg export`."""
    parser.description = (
        "Export a checkpoint to one ONNX file, verified against PyTorch, for `condseg predict --model`."
    )
    add = parser.add_argument
    add("model", help="checkpoint: a name, a folder or org/name")
    add("out", help="file to write, whose name ends in .onnx; with --triton a folder")
    add(
        "--precision",
        choices=get_args(OnnxPrecision),
        default="float32",
        help="precision of weights and arithmetic (default: %(default)s)",
    )
    add("--static", action="store_true", help="fix the input to one image at the checkpoint's size")
    add("--branch-uncertainty", action="store_true", help="include the map of the uncertainty branch")
    add(
        "--preprocessing",
        action="store_true",
        help="write a graph for programs without this package: it takes a uint8 RGB image of any size and returns "
        "probabilities",
    )
    add(
        "--triton",
        action="store_true",
        help="write a model for Triton Inference Server: the folder OUT in its model repository, with config.pbtxt and "
        "1/model.onnx",
    )
    add("--calibration", help="folder or pattern of calibration images, for int8")
    add("--opset", type=integer, default=18, help="version of the ONNX operators (default: %(default)s)")
    add("--images", help="folder or pattern of images for the verification")
    add("--no-verify", action="store_true", help="skip the comparison with PyTorch")
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Run `condseg export` and return its exit code."""
    from condseg_sdk.predictor import Predictor
    from condseg_sdk.weights.hub import is_onnx

    if is_onnx(options.model):
        raise OptionError(f"{options.model} is an ONNX file already; pass the checkpoint that it was exported from")
    folder = Path(options.out) if options.triton else None
    if folder is not None and folder.suffix == ".onnx":
        raise OptionError(f"{folder}: --triton writes a folder, which is named after the model; choose such a name")
    path = Path(options.out) if folder is None else folder / MODEL_FILE
    check_replaced([path] if folder is None else [path, folder / "config.pbtxt"], overwrite=options.overwrite)
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    with interrupts.raising(f"{options.out} was not written"):
        if folder is not None:
            make_folder(path.parent)
        report = predictor.export_onnx(
            path,
            precision=options.precision,
            dynamic=not options.static,
            branch_uncertainty=options.branch_uncertainty,
            preprocessing=options.preprocessing,
            opset=options.opset,
            verify=not options.no_verify,
            images=options.images,
            calibration=options.calibration,
        )
        if folder is not None:
            write_triton_config(folder)
    print(report)
    return 0
