"""Measure a checkpoint on images with masks: the figures of README, docs, model cards and the manifest.

    python benchmarks/accuracy.py condseg-lite-polyp kvasir_seg --list kvasir_seg/split_val120.txt

Figures are means over images of each image's IoU and Dice of the foreground, at 256x256 as in the paper and at the
image's own size.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from condseg_sdk import CondsegError, Predictor, __version__
from condseg_sdk.preprocessing import restore
from condseg_sdk.training.data import find_pairs, load_mask, read_names, resize_mask
from condseg_sdk.training.metrics import mean_scores, score

PAPER_SIZE = (256, 256)


def measure(predictor: Predictor, folder: Path, *, names: list[str] | None, tta: bool) -> dict[str, dict[str, float]]:
    """Mean scores over the pairs in a folder, {"256x256": {"mIoU", "mDSC"}, "own size": {...}}."""
    pairs = find_pairs(folder, names=names)
    answers = predictor.stream([pair.image for pair in pairs], tta=tta)
    at_paper_size, at_own_size = [], []
    for pair, seg in tqdm(zip(pairs, answers, strict=True), total=len(pairs), unit="image"):
        truth = load_mask(pair.mask)
        at_own_size.append(score(seg.mask, truth))
        logits = torch.from_numpy(restore(seg.logits, PAPER_SIZE))
        at_paper_size.append(score((logits.sigmoid() >= seg.threshold).numpy(), resize_mask(truth, PAPER_SIZE)))
    return {"256x256": mean_scores(at_paper_size), "own size": mean_scores(at_own_size)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name, folder or org/name")
    parser.add_argument("data", type=Path, help="folder with images/ and masks/")
    parser.add_argument("--list", type=Path, help="text file with the names to measure on, one a line (default: all)")
    parser.add_argument("--tta", action="store_true", help="average over the four mirror images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    try:
        predictor = Predictor.from_pretrained(options.model, device=options.device)
        names = read_names(options.list) if options.list else None
        figures = measure(predictor, options.data, names=names, tta=options.tta)
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    versions = f"condseg_sdk {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{options.model} on {options.list or options.data}, threshold {predictor.threshold}, tta {options.tta}")
    print(f"{predictor.device}, {versions}")
    for size, means in figures.items():
        print(f"{size:>10}  " + "  ".join(f"{name} {value:.4f}" for name, value in means.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
