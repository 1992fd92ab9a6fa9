"""Speed of every network in every form, runtime and precision: the table of docs/benchmarks.md and the CSV beside it.

    python benchmarks/latency.py --size 256 --batch 1 --images kvasir_seg/images --docs docs/benchmarks.md
    python benchmarks/latency.py --quick

condseg-lite has its bundled weights. The paper's two networks have random ones, normalized on the images, since speed
does not depend on them. Their threshold is the median probability, so that the Dice of their masks is meaningful.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import published
import torch
from torch import nn

from condseg_sdk.benchmarking.machine import machine_lines
from condseg_sdk.benchmarking.measure import Row
from condseg_sdk.benchmarking.run import BenchmarkConfig, benchmark, network_inputs
from condseg_sdk.benchmarking.subjects import Subject
from condseg_sdk.benchmarking.table import include, markdown, summary, write_rows
from condseg_sdk.cli.benchmark import add_config_options, check_outputs, make_config, save_outputs
from condseg_sdk.errors import CondsegError
from condseg_sdk.models import NETWORKS, ConDSeg
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint
from condseg_sdk.weights.hub import resolve

BUNDLED = {"condseg-lite": "condseg-lite-polyp"}
IMAGENET = Preprocessing((256, 256), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def checkpoint_of(name: str, config: BenchmarkConfig, folder: Path) -> Path:
    """Return the bundled checkpoint of a network, or a random one that is made here."""
    if name in BUNDLED:
        return resolve(BUNDLED[name])
    torch.manual_seed(0)
    network = ConDSeg(**NETWORKS[name]).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over all images
    images = torch.from_numpy(network_inputs(IMAGENET, 256, config.images))
    with torch.no_grad():
        network(images)
        probability = network.eval()(images).mask.sigmoid()
    threshold = float(np.clip(probability.median(), 0.01, 0.99))
    return save_checkpoint(folder / name, network, CheckpointConfig(NETWORKS[name], IMAGENET, threshold, {}))


def measure(options: argparse.Namespace, config: BenchmarkConfig, save: Callable[[list[Row]], object]) -> list[Row]:
    """Measure all networks, and save each row as soon as it is measured."""
    rows: list[Row] = []
    for name in options.network:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            checkpoint = checkpoint_of(name, config, work)

            def baselines(batch: int, size: int, checkpoint: Path = checkpoint, work: Path = work) -> list[Subject]:
                return published.subjects(checkpoint, work, batch, size, config.threads, config.devices)

            progress = partial(print, file=sys.stderr, flush=True)
            # By default only what compiles in reasonable time: condseg-r50 takes minutes for each batch and size.
            compiled = options.compile or ("first" if name == "condseg-lite" else "none")
            this = replace(config, compiled=compiled)

            def finished(new: list[Row], before: tuple[Row, ...] = tuple(rows)) -> None:
                save([*before, *new])

            rows += benchmark(
                name, checkpoint, this, work=work, baselines=baselines, finished=finished, progress=progress
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument(
        "--size", type=int, nargs="+", default=[256, 352], help="heights and widths in pixels (default: 256 352)"
    )
    parser.add_argument("--quick", action="store_true", help="condseg-lite, one image at 256x256, nothing compiled")
    parser.add_argument(
        "--docs",
        type=Path,
        help="Markdown file whose marked part becomes the summary; all rows go to assets/benchmarks.csv beside it",
    )
    add_config_options(parser)
    parser.set_defaults(compile=None)
    options = parser.parse_args()
    if options.quick:
        options.network, options.size, options.batch = ["condseg-lite"], [256], [1]
        options.compile, options.seconds = "none", min(options.seconds, 5.0)
    command = shlex.join(["python", "benchmarks/latency.py", *sys.argv[1:]])
    try:
        check_outputs(options)
        if options.docs is not None:
            include(options.docs, "being measured")  # checks now whether the file has the marks
        header = machine_lines(options.threads)
        rows = measure(options, make_config(options), lambda rows: save_outputs(options, rows, header, command))
        text = markdown(rows, header, command=command)
        print(text)
        if options.docs is not None:
            write_rows(rows, options.docs.parent / "assets" / "benchmarks.csv")
            facts = "\n".join(f"- {line}" for line in header)
            include(options.docs, f"{summary(rows)}\n\n{facts}\n\n```bash\n{command}\n```")
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
