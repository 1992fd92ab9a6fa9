"""How much masks flicker in made sequences with a known motion, with and without smoothing, and what it costs.

    python benchmarks/flicker.py condseg-lite-polyp --scenes 0 12 16 --frames 24
    python benchmarks/flicker.py condseg-lite-polyp --data kvasir_seg --count 6 --frames 24

A sequence is one image with its mask, rendered (examples/synthetic_endoscopy.py) or of a dataset, seen by a camera that
moves, zooms and turns under changing light and noise (benchmarks/moving_scenes.py). Flicker is 1 - the mean IoU of each
mask with the one before it, moved by the true motion: 0 for masks that stick to the tissue, right or wrong. mIoU is
that with the ground truth. The flicker of the ground truth itself, from the rounding of edges to pixels, is the least
that can be reached. Every variant gets the same logits.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from moving_scenes import MovingFrame, between, moving_scene
from numpy.typing import NDArray
from tqdm import tqdm

from condseg_sdk import CondsegError, Predictor, Segmentation
from condseg_sdk.data import find_pairs, load_pair
from condseg_sdk.smoothing import LogitSmoother, smooth_predictions

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from synthetic_endoscopy import render

WEIGHTS = (0.5, 0.3, 0.2, 0.1)
RENDERED = (288, 360)  # height and width; larger scenes take minutes
Smooth = Callable[[list[Segmentation]], Iterator[Segmentation]]


@dataclass
class Scores:
    """Values of one variant, one for each frame or sequence.

    Attributes:
        ious: IoU with the ground truth.
        steady: IoU with the mask before, moved by the true motion.
        worse: For each sequence, its change of mIoU by smoothing.
        seconds: CPU time of smoothing.
    """

    ious: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    sequences: list[float] = field(default_factory=list)
    seconds: float = 0.0


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def moved(mask: NDArray[np.bool_], motion: NDArray[np.float64]) -> NDArray[np.bool_]:
    return cv2.warpAffine(
        mask.astype(np.uint8), motion, mask.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT
    ).astype(bool)


def plain_average(weight: float) -> Smooth:
    """Return the exponential average of the logits without motion."""

    def smooth(segs: list[Segmentation]) -> Iterator[Segmentation]:
        average: NDArray[np.float32] | None = None
        for seg in segs:
            average = (
                seg.logits if average is None else np.float32(weight) * seg.logits + np.float32(1 - weight) * average
            )
            yield with_logits(seg, average)

    return smooth


def along_the_motion(weight: float) -> Smooth:
    """Return the average of the package."""
    return lambda segs: smooth_predictions(segs, LogitSmoother(weight))


def median(count: int) -> Smooth:
    """Return the median of the last logits of each pixel, without motion."""

    def smooth(segs: list[Segmentation]) -> Iterator[Segmentation]:
        last: deque[NDArray[np.float32]] = deque(maxlen=count)
        for seg in segs:
            last.append(seg.logits)
            yield with_logits(seg, np.median(np.stack(last), axis=0).astype(np.float32))

    return smooth


def with_logits(seg: Segmentation, logits: NDArray[np.float32]) -> Segmentation:
    return Segmentation(
        logits, seg.size, threshold=seg.threshold, source=seg.source, name=seg.name, field_of_view=seg.field_of_view
    )


def variants() -> dict[str, Smooth]:
    found: dict[str, Smooth] = {"none": iter, "median of 5": median(5)}
    found |= {f"average without motion, weight {weight}": plain_average(weight) for weight in WEIGHTS[:2]}
    found |= {f"LogitSmoother, weight {weight}": along_the_motion(weight) for weight in WEIGHTS}
    return found


def score(frames: list[MovingFrame], segs: list[Segmentation], smooth: Smooth, scores: Scores) -> None:
    """Add the values of one sequence."""
    began = time.process_time()
    smoothed = [*smooth(segs)]
    scores.seconds += time.process_time() - began
    masks = [seg.mask for seg in smoothed]
    found = [iou(mask, frame.mask) for mask, frame in zip(masks, frames, strict=True)]
    scores.ious += found
    scores.sequences.append(float(np.mean(found)))
    scores.steady += steadiness(frames, masks)


def steadiness(frames: list[MovingFrame], masks: list[NDArray[np.bool_]]) -> list[float]:
    """Return the IoU of each mask with the one before it, moved by the true motion."""
    return [
        iou(moved(mask, between(before.motion, after.motion)), following)
        for before, after, mask, following in zip(frames, frames[1:], masks, masks[1:], strict=False)
    ]


def images(options: argparse.Namespace) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield the still images and their masks."""
    if options.data is None:
        for seed in options.scenes:
            scene = render(seed, size=RENDERED)
            yield scene.image, scene.mask
        return
    pairs = find_pairs(options.data)
    for pair in pairs[:: max(1, len(pairs) // options.count)][: options.count]:
        yield load_pair(pair)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder of a checkpoint")
    parser.add_argument("--scenes", type=int, nargs="+", default=[0, 12, 16], help="seeds of rendered scenes")
    parser.add_argument("--data", help="dataset with masks instead of rendered scenes")
    parser.add_argument("--count", type=int, default=6, help="number of its images (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=24, help="frames of a sequence (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    scores = {name: Scores() for name in variants()}
    least: list[float] = []
    try:
        predictor = Predictor.from_pretrained(options.model, device=options.device)
        for number, (image, mask) in enumerate(tqdm(images(options), unit="sequence")):
            frames = moving_scene(image, mask, frames=options.frames, seed=number)
            segs = [*predictor.stream(frame.image for frame in frames)]
            for name, smooth in variants().items():
                score(frames, segs, smooth, scores[name])
            least += steadiness(frames, [frame.mask for frame in frames])
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    none = scores["none"]
    print(
        f"{len(none.sequences)} sequences of {options.frames} frames; flicker of the truth {1 - np.mean(least):.4f}\n"
    )
    print("| smoothing | mIoU | sequences whose mIoU falls by over 0.005 | flicker | of it left | CPU ms per frame |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, found in scores.items():
        worse = sum(one - other < -0.005 for one, other in zip(found.sequences, none.sequences, strict=True))
        flicker = 1 - np.mean(found.steady)
        left = flicker / (1 - np.mean(none.steady))
        cost = 1000 * found.seconds / len(found.ious)
        print(f"| {name} | {np.mean(found.ious):.4f} | {worse} | {flicker:.4f} | {left:.0%} | {cost:.1f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
