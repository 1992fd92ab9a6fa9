"""Robustness of a checkpoint: mean IoU under six corruptions of five strengths.

    python benchmarks/robustness.py condseg-lite-polyp --data kvasir_seg --list kvasir_seg/split_val120.txt --out out

All checkpoints get the same corruptions, image by image, so that their curves can be compared. Images are first
resized to the input size of the network, so that a blur or a noise of some pixels means the same for all of them.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from condseg_sdk import CondsegError, Predictor
from condseg_sdk.data import load_mask, resize_mask
from condseg_sdk.evaluation.evaluate import choose_pairs
from condseg_sdk.images.load import load_image
from condseg_sdk.metrics import score

Image = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Corruption = Callable[[Floats, float, np.random.Generator], Floats]


def illumination(image: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Darken the image toward one side, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return image * (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None]


def contrast(image: Floats, strength: float, _rng: np.random.Generator) -> Floats:
    """Move all values toward the mean gray value."""
    return image.mean() + (image - image.mean()) * (1 - strength)


def blur(image: Floats, strength: float, _rng: np.random.Generator) -> Floats:
    """Blur by a Gaussian whose sigma is the strength in 1/256 of the height."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), strength * image.shape[0] / 256), np.float32)


def noise(image: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Add independent Gaussian noise to each pixel and channel."""
    return image + rng.normal(0, strength, image.shape)


def jpeg(image: Floats, strength: float, _rng: np.random.Generator) -> Floats:
    """Compress as JPEG; the quality is the strength without its sign."""
    bgr = np.clip(image[..., ::-1] * 255, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(-strength)])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.float32)[..., ::-1] / 255


def highlights(image: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Add reflections of the lamp on wet tissue; the strength is their number."""
    height, width = image.shape[:2]
    light: Any = np.zeros((height, width), np.float32)
    for _ in range(int(strength)):
        center = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        axes = int(width * rng.uniform(0.01, 0.04)), int(height * rng.uniform(0.01, 0.04))
        cv2.ellipse(light, center, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    light = cv2.GaussianBlur(light, (0, 0), width / 256)[..., None]
    return image * (1 - light) + light


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "illumination": (illumination, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "contrast": (contrast, (0.2, 0.4, 0.6, 0.7, 0.8)),
    "blur": (blur, (0.5, 1.0, 2.0, 3.0, 4.0)),
    "noise": (noise, (0.02, 0.05, 0.1, 0.15, 0.2)),
    "jpeg": (jpeg, (-50, -30, -20, -10, -5)),
    "highlights": (highlights, (4, 8, 16, 24, 32)),
}


def corrupt(image: Image, kind: str, severity: int, seed: int) -> Image:
    """Apply one corruption of severity 1 to 5 to an image; 0 does not change it."""
    if severity == 0:
        return image
    function, strengths = CORRUPTIONS[kind]
    rng = np.random.default_rng([seed, *kind.encode()])  # the same places at every severity
    changed = function(image.astype(np.float32) / 255, strengths[severity - 1], rng)
    return np.clip(changed * 255 + 0.5, 0, 255).astype(np.uint8)


def measure(
    predictor: Predictor, images: list[Image], masks: list[NDArray[np.bool_]], bar: Any
) -> list[dict[str, Any]]:
    """Measure the mean IoU over the images for each corruption and severity."""

    def mean_iou(kind: str, severity: int) -> float:
        predictions = predictor.predict([corrupt(image, kind, severity, i) for i, image in enumerate(images)])
        bar.update()
        return float(np.mean([score(seg.mask, mask).iou for seg, mask in zip(predictions, masks, strict=True)]))

    clean = mean_iou("", 0)
    rows = [{"corruption": "none", "severity": 0, "mIoU": clean}]
    rows += [
        {"corruption": kind, "severity": severity, "mIoU": mean_iou(kind, severity)}
        for kind in CORRUPTIONS
        for severity in range(1, 6)
    ]
    return rows


def plot(table: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plot a panel for each corruption with a curve for each checkpoint."""
    from matplotlib.figure import Figure

    figure = Figure((11, 6), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for axis, kind in zip(axes, CORRUPTIONS, strict=True):
        for model, rows in table.items():
            values = [row["mIoU"] for row in rows if row["corruption"] in ("none", kind)]
            axis.plot(range(6), values, marker="o", label=model)
        axis.set(title=kind, xlabel="severity", ylabel="mIoU")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", help="names or folders of checkpoints")
    parser.add_argument("--data", required=True, help="folder with images/ and masks/, or any other layout")
    parser.add_argument("--list", type=Path, help="text file with the names to measure on (default: all)")
    parser.add_argument("--out", type=Path, help="folder for robustness.csv and robustness.png")
    options = parser.parse_args()
    table: dict[str, list[dict[str, Any]]] = {}
    try:
        pairs = choose_pairs(options.data, names=options.list)
        with tqdm(total=len(options.model) * (1 + 5 * len(CORRUPTIONS)), unit="setting") as bar:
            for model in options.model:
                predictor = Predictor.from_pretrained(model)
                size = predictor.preprocessing.size
                images = [predictor.preprocessing.resize(load_image(pair.image)) for pair in pairs]
                masks = [resize_mask(load_mask(pair.mask), size) for pair in pairs]
                table[model] = measure(predictor, images, masks, bar)
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(pairs)} images of {options.data}; mIoU at severity 1 to 5\n")
    for model, rows in table.items():
        print(
            f"### {model}: {rows[0]['mIoU']:.3f} uncorrupted\n\n| corruption | 1 | 2 | 3 | 4 | 5 | mean |\n"
            + "|---" * 7
            + "|"
        )
        for kind in CORRUPTIONS:
            values = [row["mIoU"] for row in rows if row["corruption"] == kind]
            print(f"| {kind} | " + " | ".join(f"{x:.3f}" for x in [*values, float(np.mean(values))]) + " |")
        print(f"\nmean over all: {np.mean([row['mIoU'] for row in rows[1:]]):.3f}\n")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / "robustness.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ("model", "corruption", "severity", "mIoU"))
            writer.writeheader()
            writer.writerows({"model": model, **row} for model, rows in table.items() for row in rows)
        plot(table, options.out / "robustness.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
