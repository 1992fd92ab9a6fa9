r"""For maintainers: builds one training set of several hospitals, with lists of its training and validation splits.

    python tools/polyp_set.py kvasir_seg polypgen --centers c1 c2 c3 --out polyps
    condseg finetune polyps --train-list polyps/train.txt --val-list polyps/val.txt ...

It has the 880 training images of Kvasir-SEG, of which the same 5 % are held out as in earlier runs; the images of each
chosen center of PolypGen, of which 6 % are held out; and crops of training images without the polyp, since a network
that never saw an image without one marks one everywhere. Centers that are not in `--centers` show how the result
generalizes.
"""

from __future__ import annotations

import argparse
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.data import load_mask, open_dataset
from condseg_sdk.images.load import load_image

HELD_OUT_KVASIR, HELD_OUT_CENTER = 0.05, 0.06
LARGEST_REGION = 0.2  # share of an image that is cropped; beside a larger polyp there is little to see
CROP_SIDES = (0.45, 0.75)
MARGIN = 0.03  # of the longer side, between a crop and the polyp
DARK, MOST_DARK = 25, 0.25  # a crop of the recorder's margins shows nothing
TRIES = 60


@dataclass(frozen=True)
class Sample:
    """An image of the set."""

    name: str
    image: Path
    mask: NDArray[np.bool_]


def add(out: Path, name: str, image: Path, mask: Path) -> Sample:
    """Copy an image and write its mask as PNG."""
    shutil.copyfile(image, out / "images" / f"{name}{image.suffix}")
    values = load_mask(mask)
    Image.fromarray(values.astype(np.uint8) * 255).save(out / "masks" / f"{name}.png")
    return Sample(name, image, values)


def crop_without_region(sample: Sample, rng: random.Random) -> NDArray[np.uint8] | None:
    """Crop a part of the image without the region, in the image's proportions; None if there is none."""
    image = load_image(sample.image)
    height, width = sample.mask.shape
    if image.shape[:2] != sample.mask.shape:
        return None
    margin = int(MARGIN * max(height, width))
    for _ in range(TRIES):
        side = rng.uniform(*CROP_SIDES)
        rows, columns = int(height * side), int(width * side)
        top, left = rng.randrange(height - rows + 1), rng.randrange(width - columns + 1)
        around = (
            slice(max(top - margin, 0), top + rows + margin),
            slice(max(left - margin, 0), left + columns + margin),
        )
        crop = image[top : top + rows, left : left + columns]
        if not sample.mask[around].any() and (crop.max(2) < DARK).mean() <= MOST_DARK:
            return crop
    return None


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kvasir", type=Path, help="folder of Kvasir-SEG, with split_train880.txt")
    parser.add_argument("polypgen", type=Path, help="folder of PolypGen; names begin with the center, such as c1_")
    parser.add_argument("--centers", nargs="*", default=["c1", "c2", "c3"], help="centers to take (default: c1 c2 c3)")
    parser.add_argument("--crops", type=int, default=220, help="crops without a region (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args()
    rng = random.Random(0)
    for part in ("images", "masks"):
        (options.out / part).mkdir(parents=True)
    train: list[Sample] = []
    held_out: list[Sample] = []
    kvasir = open_dataset(
        options.kvasir, train_list=options.kvasir / "split_train880.txt", val_fraction=HELD_OUT_KVASIR, seed=0
    )
    for pairs, samples in ((kvasir.train, train), (kvasir.validation, held_out)):
        for pair in pairs:
            assert isinstance(pair.mask, Path)
            samples.append(add(options.out, f"kv_{pair.name}", pair.image, pair.mask))
    images = sorted((options.polypgen / "images").glob("*.jpg"))
    for center in options.centers:
        own = [image for image in images if image.name.startswith(f"{center}_")]
        order = own[:]
        rng.shuffle(order)
        chosen = set(order[: round(HELD_OUT_CENTER * len(order))])
        for image in own:
            sample = add(options.out, image.stem, image, options.polypgen / "masks" / f"{image.stem}.png")
            (held_out if image in chosen else train).append(sample)
    names = [sample.name for sample in train]
    rng.shuffle(train)
    made = 0
    for sample in train:
        if made == options.crops:
            break
        if not 0 < sample.mask.mean() < LARGEST_REGION:
            continue
        crop = crop_without_region(sample, rng)
        if crop is not None:
            name = f"neg_{sample.name}"
            Image.fromarray(crop).save(options.out / "images" / f"{name}.png")
            Image.fromarray(np.zeros(crop.shape[:2], np.uint8)).save(options.out / "masks" / f"{name}.png")
            names.append(name)
            made += 1
    for file, listed in (("train.txt", names), ("val.txt", [sample.name for sample in held_out])):
        (options.out / file).write_text("\n".join(listed) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(names)} images to train on, {made} of them crops; {len(held_out)} held out")


if __name__ == "__main__":
    main()
