"""Does stage 1 earn its place? condseg-lite on GlaS, with and without it, at the same number of steps.

Both arms take as many steps of the same batch: without stage 1 its epochs go to stage 2. A step of stage 1 takes about
as long as one of stage 2 (0.75 s and 0.7 s on one core: stage 1 sees every image twice), so that the time is the same,
too. All images come from the 85 of GlaS's training part: 60 to train on and 25 to choose epoch and threshold, the same
ones in every run (splits/glas_train60.txt, splits/glas_val25.txt). The 80 test images are not read.

Runs that are in the table already are left out, a run that was broken off goes on:

    python benchmarks/stage1.py path/to/glas --out runs/stage1
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from pathlib import Path

from condseg_sdk import finetune

SPLITS = Path(__file__).parent / "splits"
COLUMNS = ("seed", "stage1_epochs", "epochs", "mIoU", "mDSC", "threshold", "last_iou", "seconds")


def run(options: argparse.Namespace, seed: int, stage1_epochs: int) -> dict[str, float]:
    """One run; figures are of the 25."""
    folder = options.out / f"seed{seed}_stage1_{stage1_epochs}"
    epochs = options.epochs - stage1_epochs
    start = time.perf_counter()
    result = finetune(
        options.data,
        output_dir=folder,
        train_list=SPLITS / "glas_train60.txt",
        val_list=SPLITS / "glas_val25.txt",
        image_size=192,
        batch_size=4,
        base=options.base,
        epochs=epochs,
        stage1_epochs=stage1_epochs,
        ema_decay=0.98,
        seed=seed,
        resume=True,
    )
    return {
        "seed": seed,
        "stage1_epochs": stage1_epochs,
        "epochs": epochs,
        **{name: round(result.metrics[name], 4) for name in ("mIoU", "mDSC", "threshold")},
        "last_iou": round(result.history[-1]["val_iou"], 4),
        "seconds": round(time.perf_counter() - start),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="GlaS with its train_* images and masks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="imagenet:efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=28, help="of both stages together")
    parser.add_argument("--stage1-epochs", type=int, default=6, help="in the arm with stage 1")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "stage1.csv"
    rows: list[dict[str, float]] = []
    if table.exists():
        with table.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    done = {(row["seed"], row["stage1_epochs"]) for row in rows}
    for seed in range(options.seeds):
        for stage1_epochs in (options.stage1_epochs, 0):
            if (seed, stage1_epochs) not in done:
                rows.append(run(options, seed, stage1_epochs))
                with table.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
    for stage1_epochs in (options.stage1_epochs, 0):
        arm = [row for row in rows if row["stage1_epochs"] == stage1_epochs]
        for name in ("mIoU", "mDSC", "last_iou"):
            values = [row[name] for row in arm]
            mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{stage1_epochs} epochs of stage 1: {name} {mean:.4f} +- {spread:.4f} ({len(values)} seeds)")


if __name__ == "__main__":
    main()
