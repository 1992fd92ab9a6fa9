"""`condseg benchmark`: measures the speed of a checkpoint on this machine, in every runtime and precision."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.outputs import add_overwrite, check_output_folder
from condseg_sdk.cli.types import integer, real
from condseg_sdk.errors import OptionError
from condseg_sdk.files import make_folder, write_bytes
from condseg_sdk.provenance import check_replaced, seal_text

if TYPE_CHECKING:
    from condseg_sdk.benchmarking.measure import Row
    from condseg_sdk.benchmarking.run import BenchmarkConfig

DEVICES = ("cpu", "openvino", "cuda", "tensorrt")
CSV, TABLE, PLOT = "benchmark.csv", "benchmark.md", "benchmark.png"
DEFAULT_MODEL = "condseg-lite-polyp"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `condseg benchmark`."""
    parser.description = (
        "Measure checkpoints in PyTorch and ONNX Runtime, in every precision and on every device, and print Markdown."
    )
    parser.add_argument(
        "model",
        nargs="*",
        default=[DEFAULT_MODEL],
        help=f"checkpoints: names, folders or org/name (default: {DEFAULT_MODEL})",
    )
    add_config_options(parser)
    parser.add_argument(
        "--size",
        type=integer,
        nargs="+",
        default=[],
        help="heights and widths in pixels (default: the checkpoint's)",
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that this command shares with `benchmarks/latency.py`."""
    add = parser.add_argument
    add("--batch", type=integer, nargs="+", default=[1, 8], help="numbers of images in one call (default: 1 8)")
    add("--images", help="folder or pattern of images like those to be segmented, for the comparison and int8")
    add("--calibration", type=integer, default=32, help="number of calibration images for int8 (default: 32)")
    add("--threads", type=integer, help="number of threads of PyTorch and ONNX Runtime (default: their own)")
    add("--device", nargs="+", choices=DEVICES, default=list(DEVICES), help="devices to measure (default: all)")
    add("--seconds", type=real, default=30.0, help="seconds for each batch and size (default: %(default)s)")
    add(
        "--compile", choices=("none", "first", "all"), default="none",
        help="batches and sizes at which to measure torch.compile, which takes minutes each (default: none)"
    )  # fmt: skip
    add("--out", type=Path, help="folder for benchmark.csv and benchmark.md")
    add("--plot", action="store_true", help="also write benchmark.png to OUT; needs matplotlib")
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Run `condseg benchmark` and return its exit code."""
    from condseg_sdk.benchmarking.machine import machine_lines
    from condseg_sdk.benchmarking.run import benchmark
    from condseg_sdk.benchmarking.table import markdown
    from condseg_sdk.weights.hub import resolve

    check_outputs(options)
    config = make_config(options)
    for model in options.model:
        if Path(model).suffix.lower() == ".onnx":
            raise OptionError(f"{model}: pass the checkpoint it was exported from; the exports are measured with it")
    rows: list[Row] = []
    folders = [resolve(model) for model in options.model]
    for model, folder in zip(options.model, folders, strict=True):
        with interrupts.raising("nothing was written"), tempfile.TemporaryDirectory() as work:
            rows += benchmark(
                Path(model).name, folder, config, work=Path(work), progress=lambda x: print(x, file=sys.stderr)
            )
    command = shlex.join(["condseg", "benchmark", *sys.argv[2:]])
    header = machine_lines(options.threads)
    save_outputs(options, rows, header, command)
    print(markdown(rows, header, command=command))
    return 0


def check_outputs(options: argparse.Namespace) -> None:
    """Check before the measurement that its results can be written.

    Raises:
        OptionError: A plot was requested without a folder.
        InstallationError: A plot was requested without matplotlib.
        OutputError: The folder cannot be created, or contains files that must not be replaced.
    """
    from condseg_sdk.benchmarking.plot import require_matplotlib

    if options.plot:
        if options.out is None:
            raise OptionError("--plot needs --out, the folder to write to")
        require_matplotlib()
    if options.out is not None:
        check_output_folder(options.out)
        check_replaced([options.out / name for name in (CSV, TABLE, PLOT)], overwrite=options.overwrite)


def make_config(options: argparse.Namespace) -> BenchmarkConfig:
    """Return the options as a `BenchmarkConfig`, with loaded images."""
    from condseg_sdk.benchmarking.run import BenchmarkConfig
    from condseg_sdk.images.load import find_images, load_image

    if options.calibration < 1:
        raise OptionError(f"--calibration {options.calibration} must be at least 1")
    paths = find_images(options.images)[: options.calibration] if options.images else []
    return BenchmarkConfig(
        batches=tuple(options.batch),
        sizes=tuple(options.size),
        images=[load_image(path) for path in paths],
        threads=options.threads,
        seconds=options.seconds,
        compiled=options.compile or "none",
        devices=tuple(options.device),
    )


def save_outputs(options: argparse.Namespace, rows: list[Row], header: list[str], command: str) -> None:
    """Write the requested files to `--out`."""
    from condseg_sdk.benchmarking.plot import plot
    from condseg_sdk.benchmarking.table import markdown, write_rows

    if options.out is None:
        return
    table = write_rows(rows, make_folder(options.out) / CSV)
    text = seal_text(markdown(rows, header, command=command), tables=[table])
    write_bytes(options.out / TABLE, text)
    if options.plot:
        plot(rows, options.out / PLOT, title="; ".join(header[1:3]))
