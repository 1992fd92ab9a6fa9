"""How well a checkpoint recognizes the images that it was trained on, as they are and changed.

    python benchmarks/recognition.py condseg-lite-polyp polyps --list polyps/train.txt --every 10
    python benchmarks/recognition.py condseg-lite-polyp polypgen --list center4.txt

For images that were trained on, each row should be near 100 %; for others, the first row is the rate of false alarms.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from tqdm import tqdm

from condseg_sdk import CondsegError, Predictor
from condseg_sdk.data.duplicates import fingerprint
from condseg_sdk.data.examine import image_fingerprint
from condseg_sdk.evaluation.evaluate import choose_pairs
from condseg_sdk.images.load import load_image
from condseg_sdk.metrics.intervals import estimate_share


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(share * image.width), round(share * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 40": lambda image: _jpeg(image, 40),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "256x256": lambda image: image.resize((256, 256), Image.Resampling.BILINEAR),
    "a third of the size, JPEG of quality 50": lambda image: _jpeg(
        image.resize((image.width // 3, image.height // 3), Image.Resampling.BICUBIC), 50
    ),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "gamma 0.8": lambda image: image.point(lambda value: 255 * (value / 255) ** 0.8),
    "2 % cut off at each edge": lambda image: _cropped(image, 0.02),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="checkpoint with training_images.json")
    parser.add_argument("data", help="images with masks")
    parser.add_argument("--list", type=Path, help="text file with the names of the images, one per line (default: all)")
    parser.add_argument("--every", type=int, default=1, help="only every n-th image")
    options = parser.parse_args()
    try:
        digests = Predictor.from_pretrained(options.model, device="cpu").training_images
        paths = [pair.image for pair in choose_pairs(options.data, names=options.list)][:: options.every]
        if digests is None:
            raise CondsegError(f"{options.model} has no training_images.json: choose another checkpoint")
        prints = {"as they are": [image_fingerprint(path) for path in paths], **{name: [] for name in CHANGES}}
        for path in tqdm(paths, unit="image"):
            image = Image.fromarray(load_image(path))
            for name, change in CHANGES.items():
                prints[name].append(fingerprint(np.asarray(change(image).convert("L"))))
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.model}, {len(digests)} digests; recognized of {len(paths)} images of {options.data}")
    for name, images in prints.items():
        count = sum(digests.matches(images))
        print(f"{name:42} {count:5}  {estimate_share(count, len(images))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
