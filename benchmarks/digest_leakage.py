"""What the digest of a training image reveals: thumbnails restored from digests, by somebody with many similar images.

    python benchmarks/digest_leakage.py kvasir_seg --sheet sheet.png

A ridge regression from the 128 bits to the 32x32 thumbnail is learned on four fifths of the images, and restores the
others. The sheet has some of these thumbnails above what was restored.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.data.examine import image_fingerprint
from condseg_sdk.data.training_digests import TrainingDigests
from condseg_sdk.evaluation.evaluate import choose_pairs

STRENGTHS = (10.0, 30.0, 100.0, 300.0)  # of the regularization; the best one is taken
SHOWN = 8


def correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate each row with the same row of the other array."""
    a, b = (x - x.mean(1, keepdims=True) for x in (first, second))
    return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="images with masks, all of one kind")
    parser.add_argument("--sheet", type=Path, help="PNG file for some thumbnails and what was restored")
    options = parser.parse_args()
    prints = [image_fingerprint(pair.image) for pair in choose_pairs(options.data)]
    prints = [image for image in prints if not image.is_blank]
    random.Random(0).shuffle(prints)
    thumbnails = np.stack([image.thumbnail for image in prints]).astype(np.float64)
    bits = np.unpackbits(TrainingDigests.of(prints, salt=b"salt").values, axis=1) * 2.0 - 1
    known = len(prints) * 4 // 5
    mean = thumbnails[:known].mean(0)
    found = []
    for strength in STRENGTHS:
        gram = bits[:known].T @ bits[:known] + strength * np.eye(bits.shape[1])
        weights = np.linalg.solve(gram, bits[:known].T @ (thumbnails[:known] - mean))
        restored = bits[known:] @ weights + mean
        found.append((float(np.median(correlations(restored, thumbnails[known:]))), restored))
    best, restored = max(found, key=lambda item: item[0])
    of_mean = np.median(correlations(np.broadcast_to(mean, restored.shape), thumbnails[known:]))
    print(f"{options.data}: learned on {known} images, {len(restored)} restored")
    print(f"median correlation with the thumbnail {best:.3f}; of the mean of all images {of_mean:.3f}")
    if options.sheet is not None:
        rows = [np.hstack([row.reshape(32, 32) for row in x[:SHOWN]]) for x in (thumbnails[known:], restored)]
        sheet = Image.fromarray(np.vstack(rows).clip(0, 255).astype(np.uint8))
        sheet.resize((sheet.width * 4, sheet.height * 4), Image.Resampling.NEAREST).save(options.sheet)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
