"""How well `Segmentation.uncertainty_score` finds wrong masks, for people who look at a quarter of the images.

    python benchmarks/uncertainty_order.py condseg-lite-polyp my_test_set/ --list names.txt

Prints the rank correlation of the score with 1 - IoU, the share of the worst quarter of the masks that is in the most
uncertain quarter (25 % by chance), and the mean IoU of that quarter and of the rest. A correct empty mask has IoU 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from condseg_sdk import Predictor
from condseg_sdk.data import find_pairs, load_mask, read_names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--list", type=Path, help="names to use, one per line")
    parser.add_argument("--prefix", default="", help="only images whose names begin so")
    options = parser.parse_args()
    pairs = find_pairs(options.data, names=read_names(options.list) if options.list else None)
    pairs = [pair for pair in pairs if pair.name.startswith(options.prefix)]
    scores, ious = [], []
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    for pair, seg in zip(pairs, predictor.stream([pair.image for pair in pairs]), strict=True):
        mask, truth = seg.mask, load_mask(pair.mask)
        union = np.count_nonzero(mask | truth)
        ious.append(np.count_nonzero(mask & truth) / union if union else 1.0)
        scores.append(seg.uncertainty_score)
    quarter = len(pairs) // 4
    uncertain, worst = np.argsort(scores)[::-1][:quarter], np.argsort(ious)[:quarter]
    rest = np.setdiff1d(np.arange(len(pairs)), uncertain)
    overlap = len(np.intersect1d(uncertain, worst)) / quarter
    correlation = spearmanr(scores, [1 - iou for iou in ious]).statistic
    print(
        f"{options.data}, {len(pairs)} images: rank correlation {correlation:.2f}, of the worst quarter {overlap:.0%}"
    )
    shown, others = np.take(ious, uncertain).mean(), np.take(ious, rest).mean()
    print(f"mean IoU {shown:.3f} in the most uncertain quarter, {others:.3f} in the rest")


if __name__ == "__main__":
    main()
