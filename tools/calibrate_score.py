"""For maintainers: calibrates `Segmentation.score` of a checkpoint on held-out images, and writes its config.json.

    python tools/calibrate_score.py runs/polyp/chosen polyps --list polyps/val.txt --crops 2

`finetune` does this by itself where the validation split has images without a region. For sets with hardly any, crops
of the same images beside the region stand in for them, as in `tools/polyp_set.py`.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path

from polyp_set import LARGEST_REGION, Sample, crop_without_region

from condseg_sdk import Predictor
from condseg_sdk.data import load_mask
from condseg_sdk.evaluation.evaluate import choose_pairs
from condseg_sdk.json_files import write_json
from condseg_sdk.metrics.intervals import estimate_auroc
from condseg_sdk.region_score import peak_logit
from condseg_sdk.training.calibrate_score import calibrate_score
from condseg_sdk.weights.checkpoint import load_checkpoint


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder whose config.json is written")
    parser.add_argument("data", help="images with masks")
    parser.add_argument("--list", type=Path, help="names of the held-out images, one per line (default: all)")
    parser.add_argument("--crops", type=int, default=0, help="crops without a region of each image (default: none)")
    options = parser.parse_args()
    rng = random.Random(0)
    images, has_region = [], []
    for pair in choose_pairs(options.data, names=options.list):
        mask = load_mask(pair.mask)
        sample = Sample(pair.name, pair.image, mask)
        images.append(pair.image)
        has_region.append(bool(mask.any()))
        tries = options.crops if 0 < mask.mean() < LARGEST_REGION else 0
        crops = [crop for _ in range(tries) if (crop := crop_without_region(sample, rng)) is not None]
        images += crops
        has_region += [False] * len(crops)
    peaks = [
        peak_logit(seg.logits) for seg in Predictor.from_pretrained(options.checkpoint, device="cpu").stream(images)
    ]
    curve = calibrate_score(peaks, has_region)
    if curve is None:
        raise SystemExit(f"{sum(has_region)} of {len(has_region)} images have a region: these cannot be told apart")
    groups = [[curve(p) for p, has in zip(peaks, has_region, strict=True) if has is kind] for kind in (True, False)]
    print(f"{len(groups[0])} images with a region, {len(groups[1])} without; AUROC {estimate_auroc(*groups)}; {curve}")
    _, config = load_checkpoint(options.checkpoint)
    write_json(options.checkpoint / "config.json", replace(config, score=curve).to_dict(), indent=2)


if __name__ == "__main__":
    main()
