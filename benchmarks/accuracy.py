"""Measure a checkpoint on images with masks: the metrics in README, docs, model cards and the manifest.

    python benchmarks/accuracy.py condseg-lite-polyp kvasir_seg --list kvasir_seg/split_val120.txt

The metrics are means over images of the IoU and Dice of the foreground, at 256x256 as in the paper and at the image's
own size. `condseg evaluate` measures the same and much more; this script prints the values of the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from condseg_sdk import CondsegError, Predictor
from condseg_sdk.evaluation.evaluate import evaluate
from condseg_sdk.evaluation.result import SIZES, Evaluation


def metrics(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Return {"256x256": {"mIoU", "mDSC"}, "own size": {...}}."""
    means = {title: evaluation.means(size) for size, title in SIZES.items()}
    return {title: {name: found[name].value for name in ("mIoU", "mDSC")} for title, found in means.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name, folder, org/name or .onnx file")
    parser.add_argument("data", help="folder with images/ and masks/, or any other layout of docs/data.md")
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument("--list", type=Path, help="text file with the names of the images (default: all)")
    selection.add_argument("--split", choices=["train", "validation", "test"], help="only this split of the data")
    parser.add_argument("--tta", action="store_true", help="average over four flips of the image")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="file for the metrics")
    options = parser.parse_args()
    try:
        predictor = Predictor.from_pretrained(options.model, device=options.device)
        with tqdm(unit="image") as bar:
            evaluation = evaluate(
                predictor,
                options.data,
                names=options.list,
                split=options.split,
                tta=options.tta,
                on_start=bar.reset,
                on_result=lambda _: bar.update(),
            )
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    environment = evaluation.environment
    versions = ", ".join(f"{name} {environment[name]}" for name in ("condseg_sdk", "torch", "python"))
    print(f"{options.model} on {evaluation.data}, threshold {evaluation.threshold}, tta {options.tta}")
    print(f"{predictor.device}, {versions}")
    for size, means in metrics(evaluation).items():
        print(f"{size:>10}  " + "  ".join(f"{name} {value:.4f}" for name, value in means.items()))
    if options.json:
        options.json.write_text(json.dumps(metrics(evaluation), indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
