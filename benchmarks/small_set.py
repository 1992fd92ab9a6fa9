r"""Comparison of starts for a small training set: checkpoints or ImageNet, with or without stage 1, over seeds.

    python benchmarks/small_set.py path/to/glas --lists glas --out runs/bases \\
        --arms imagenet:efficientnet_lite0 condseg-lite-polyp
    python benchmarks/small_set.py path/to/glas --lists glas --out runs/stage1 \\
        --arms imagenet:efficientnet_lite0+6 imagenet:efficientnet_lite0

An arm is a base and, after a plus sign, the number of epochs of stage 1. All arms take the same number of steps of
the same batch: epochs of stage 1 are subtracted from stage 2, and a step of either takes about as long (0.75 s and
0.7 s on one core: stage 1 computes every image twice). Each run trains on the same 60 images, and the same others
choose epoch and threshold: splits/<lists>_train60.txt and splits/<lists>_val*.txt, all from the training split of the
set. Test images are not read.

Runs that are already in the table (out/runs.csv) are left out, and an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from condseg_sdk import CondsegError, finetune, open_dataset

SPLITS = Path(__file__).parent / "splits"
SETS = {"glas": "glas_val25.txt", "isic2017": "isic2017_val60.txt"}
METRICS = ("mIoU", "mDSC", "last_iou")


@dataclass(frozen=True)
class Arm:
    """One arm of the comparison.

    Attributes:
        base: As in `finetune`.
        stage1_epochs: Number of epochs of stage 1, subtracted from those of stage 2.
    """

    base: str
    stage1_epochs: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "base" or "base+epochs"."""
        base, plus, epochs = text.rpartition("+")
        return cls(base, int(epochs)) if plus and epochs.isdigit() else cls(text)

    def __str__(self) -> str:
        return f"{self.base}+{self.stage1_epochs}" if self.stage1_epochs else self.base


def run(options: argparse.Namespace, arm: Arm, seed: int) -> dict[str, str]:
    """Train once; the metrics are those of the validation images."""
    start = time.perf_counter()
    result = finetune(
        open_dataset(
            options.data, train_list=SPLITS / f"{options.lists}_train60.txt", val_list=SPLITS / SETS[options.lists]
        ),
        output_dir=options.out / f"{str(arm).replace(':', '_').replace('/', '_')}_seed{seed}",
        image_size=192,
        batch_size=4,
        base=arm.base,
        field_of_view="none",  # these images are no recordings; without it a named base would decide
        epochs=options.epochs - arm.stage1_epochs,
        stage1_epochs=arm.stage1_epochs,
        ema_decay=0.98,
        seed=seed,
        resume=True,
    )
    metrics = {**result.metrics, "last_iou": result.history[-1]["val_iou"]}
    return {
        "arm": str(arm),
        "seed": str(seed),
        **{name: f"{metrics[name]:.4f}" for name in (*METRICS, "threshold")},
        "seconds": f"{time.perf_counter() - start:.0f}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the set")
    parser.add_argument("--lists", choices=SETS, required=True, help="name of the set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", type=Arm.parse, nargs="+", required=True, metavar="BASE[+EPOCHS]")
    parser.add_argument("--epochs", type=int, default=28, help="epochs of both stages together")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "runs.csv"
    rows: list[dict[str, str]] = []
    if table.exists():
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for seed in range(options.seeds):
        for arm in options.arms:
            if any((row["arm"], row["seed"]) == (str(arm), str(seed)) for row in rows):
                continue
            try:
                rows.append(run(options, arm, seed))
            except CondsegError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    for arm in options.arms:
        for name in METRICS:
            values = [float(row[name]) for row in rows if row["arm"] == str(arm)]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{arm}: {name} {statistics.mean(values):.4f} +- {spread:.4f} ({len(values)} seeds)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
