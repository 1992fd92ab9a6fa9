"""For maintainers: chooses epoch, input size and threshold of a checkpoint on the validation split.

    python tools/choose.py runs/polyp kvasir_seg --sizes 256 288 320 --out runs/polyp/chosen

The best and the last epoch are compared at each input size, since a run that finishes at a larger size may be best in
between. Only the run's own validation split is used.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condseg_sdk.data import load_mask, resize_mask
from condseg_sdk.evaluation.evaluate import choose_pairs
from condseg_sdk.field_of_view import FieldOfView, scale_box
from condseg_sdk.images.load import load_image
from condseg_sdk.metrics import score
from condseg_sdk.models import ConDSeg
from condseg_sdk.preprocessing import Preprocessing, resize_logits
from condseg_sdk.weights.checkpoint import load_checkpoint, load_digests, save_checkpoint

THRESHOLDS = np.linspace(0.2, 0.8, 13)
PAPER_SIZE = (256, 256)


def mean_ious(
    network: ConDSeg, preprocessing: Preprocessing, images: list[NDArray[np.uint8]], masks: list[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Compute the mean IoU at 256x256 for each threshold."""
    totals = np.zeros(len(THRESHOLDS))
    for image, mask in zip(images, masks, strict=True):
        with torch.inference_mode():
            logits = network(torch.from_numpy(preprocessing(image))[None]).mask[0, 0].numpy()
        levels = np.log(THRESHOLDS / (1 - THRESHOLDS))
        box = scale_box(preprocessing.find_field_of_view(image), image.shape[:2], PAPER_SIZE)
        at_paper_size = resize_logits(logits, PAPER_SIZE, box)
        totals += [score(at_paper_size >= level, mask).iou for level in levels]
    return totals / len(images)


def by_size(
    title: str,
    network: ConDSeg,
    preprocessing: Preprocessing,
    sizes: list[int],
    images: list[NDArray[np.uint8]],
    masks: list[NDArray[np.bool_]],
) -> list[tuple[float, Preprocessing, float]]:
    """Find the best mean IoU for each input size, with the preprocessing and the threshold, and print it."""
    found = []
    for side in sizes:
        resized = replace(preprocessing, size=(side, side))
        ious = mean_ious(network, resized, images, masks)
        iou, threshold = float(ious.max()), round(float(THRESHOLDS[ious.argmax()]), 2)
        print(f"{title:5} {side}: mIoU {iou:.4f} at threshold {threshold:.2f}", flush=True)
        found.append((iou, resized, threshold))
    return found


def mean_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average the weights of two networks of one architecture, including BatchNorm statistics."""
    return {name: (value + second[name]) / 2 if value.is_floating_point() else value for name, value in first.items()}


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output_dir of finetune")
    parser.add_argument("data", help="dataset that it was trained on")
    parser.add_argument("--sizes", type=int, nargs="+", required=True, help="sides of the input in pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument(
        "--field-of-view", choices=get_args(FieldOfView), help="field of view of the checkpoint (default: the run's)"
    )
    parser.add_argument("--average-with", type=Path, help="average each epoch's weights with those of this checkpoint")
    parser.add_argument("--beside", nargs="*", default=[], help="other checkpoints to compare with")
    options = parser.parse_args()
    names = json.loads((options.run / "settings.json").read_text(encoding="utf-8"))["split"]["validation"]
    pairs = choose_pairs(options.data, names=names)
    images = [load_image(pair.image) for pair in pairs]
    masks = [resize_mask(load_mask(pair.mask), PAPER_SIZE) for pair in pairs]
    network, config = load_checkpoint(options.run / "checkpoint")
    run = config.preprocessing
    if options.field_of_view:
        run = replace(run, field_of_view=options.field_of_view)
    found = []
    for epoch in ("best", "last"):
        state = torch.load(options.run / "stage2" / f"{epoch}.ckpt", map_location="cpu", weights_only=True)[
            "state_dict"
        ]
        weights = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
        if options.average_with:
            weights = mean_weights(weights, load_checkpoint(options.average_with)[0].state_dict())
        network.load_state_dict(weights)
        results = by_size(epoch, network.eval(), run, options.sizes, images, masks)
        found += [(*of_size, epoch, weights) for of_size in results]
    for other in options.beside:
        beside, its = load_checkpoint(Path(other))
        by_size(other, beside.eval(), its.preprocessing, options.sizes, images, masks)
    iou, preprocessing, threshold, epoch, weights = max(found, key=lambda x: x[0])
    network.load_state_dict(weights)
    provenance = {**config.provenance, "validation": {"mIoU": iou, "threshold": threshold, "epoch": epoch}}
    # The run's score was calibrated with its own epoch and size; `tools/calibrate_score.py` does it for these.
    config = replace(config, preprocessing=preprocessing, threshold=threshold, provenance=provenance, score=None)
    folder = save_checkpoint(options.out, network, config, digests=load_digests(options.run / "checkpoint"))
    print(f"{folder}: {epoch}, {preprocessing.size}, {threshold}")


if __name__ == "__main__":
    main()
