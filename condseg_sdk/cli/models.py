"""`condseg models`: what the manifest lists."""

from __future__ import annotations

import argparse
import json

HELP = "list the checkpoints this version knows"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the checkpoints that can be loaded by name."
    parser.add_argument("--json", action="store_true", help="everything the manifest says, as JSON")


def run(options: argparse.Namespace) -> int:
    from condseg_sdk.weights.manifest import list_models

    entries = list_models()
    if options.json:
        print(json.dumps([entry.to_dict() for entry in entries], indent=2))
        return 0
    rows: list[tuple[str, ...]] = [("NAME", "NETWORK", "MB", "DATA", "mIoU", "mDSC", "LICENSE")]
    for entry in entries:
        figures = [f"{entry.metrics[key]:.4f}" if key in entry.metrics else "-" for key in ("mIoU", "mDSC")]
        rows.append((entry.name, entry.network, f"{entry.bytes / 1e6:.1f}", entry.data, *figures, entry.license))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
