"""`condseg models`: lists the models that can be loaded by name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from condseg_sdk.checkpoints.manifest_entry import ManifestEntry

HEAD = ("NAME", "NETWORK", "MB", "WHERE", "DATA", "mIoU", "mDSC", "LICENSE")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `condseg models`."""
    parser.description = (
        "List the checkpoints that can be loaded by name, with their metrics, or the ImageNet weights that training "
        "can start from."
    )
    parser.add_argument(
        "--encoders", action="store_true", help="list ImageNet weights of encoders instead of checkpoints"
    )
    parser.add_argument("--manifest", help="path of your own manifest, in addition to those in CONDSEG_MANIFEST")
    parser.add_argument("--json", action="store_true", help="print the whole entries as JSON")


def run(options: argparse.Namespace) -> int:
    """Run `condseg models` and return its exit code."""
    from condseg_sdk.weights.manifest import list_models

    entries = list_models("encoder" if options.encoders else "checkpoint", manifest=options.manifest)
    if options.json:
        print(json.dumps([entry.to_dict() for entry in entries], indent=2))
        return 0
    print(_table([HEAD, *map(_row, entries)]))
    return 0


def _row(entry: ManifestEntry) -> tuple[str, ...]:
    from condseg_sdk.checkpoints.manifest_entry import SHOWN_METRICS

    metrics = [f"{entry.metrics[key]:.4f}" if key in entry.metrics else "-" for key in SHOWN_METRICS]
    size = "-" if entry.bytes is None else f"{entry.bytes / 1e6:.1f}"
    return (entry.name, entry.network, size, _place(entry), entry.data, *metrics, entry.license)


def _place(entry: ManifestEntry) -> str:
    if entry.file is not None:
        return "on disk"
    return f"pip {entry.package.distribution}" if entry.package else f"Hub {entry.hub.repo_id}" if entry.hub else "-"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Align columns to their widest cell; empty columns are left out."""
    columns = [column for column in zip(*rows, strict=True) if len(rows) == 1 or set(column[1:]) != {"-"}]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
