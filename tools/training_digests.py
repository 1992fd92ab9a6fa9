"""For maintainers: writes the digests of the images that a bundled checkpoint was trained on.

    python tools/training_digests.py CHECKPOINT isic2017 --train-list benchmarks/splits/isic2017_train1850.txt

`finetune` writes them for each run; this is for checkpoints of before. With the same lists and `--val-fraction` as in
the run, its training split is found again. Digests that the checkpoint has already are kept: run it for each dataset.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from condseg_sdk import check_dataset, open_dataset
from condseg_sdk.download import DIGESTS_FILE
from condseg_sdk.weights.checkpoint import load_digests


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", help="images with masks")
    parser.add_argument("--train-list", type=Path, help="names of the training split, one per line")
    parser.add_argument("--val-list", type=Path, help="names of the validation split, one per line")
    parser.add_argument("--val-fraction", type=float, help="share held out of the training list")
    parser.add_argument("--without", help="beginning of names to leave out, such as crops of other images")
    options = parser.parse_args()
    lists = {"train_list": options.train_list, "val_list": options.val_list}
    dataset = open_dataset(options.data, val_fraction=options.val_fraction, seed=0, **lists)
    train = [pair for pair in dataset.train if not (options.without and pair.name.startswith(options.without))]
    report = check_dataset(replace(dataset, train=train), trained_on=load_digests(options.checkpoint))
    assert report.training_digests is not None
    report.training_digests.save(options.checkpoint / DIGESTS_FILE)
    print(f"{len(train)} images; {len(report.training_digests)} digests in {options.checkpoint / DIGESTS_FILE}")


if __name__ == "__main__":
    main()
