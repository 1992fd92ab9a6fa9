"""The argument `--device` of the commands that predict."""

from __future__ import annotations

import argparse

from condseg_sdk.runtimes.options import ONNX_DEVICES

__all__ = ["add_device"]


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the argument `--device`."""
    parser.add_argument(
        "--device",
        default="auto",
        help=f"auto, cpu, cuda, cuda:1; with PyTorch mps; with ONNX Runtime {', '.join(ONNX_DEVICES)} "
        "(default: %(default)s)",
    )
