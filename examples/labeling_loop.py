"""Pre-label, correct, fine-tune: labels for your images with less drawing by hand.

    python examples/labeling_loop.py prelabel images/ work/ --label polyp  # then correct work/labelme/*.json in LabelMe
    python examples/labeling_loop.py train images/ work/ --corrected 20  # on the 20 most uncertain images

The first command writes LabelMe files, a table and a contact sheet. Table and sheet begin with the images whose
predictions are the most uncertain: correct those first. The second command trains on them and writes
work/run/checkpoint, with which the first command labels the next images.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from condseg_sdk import Predictor, finetune, open_dataset, save_labels


def prelabel(images: Path, work: Path, model: str, label: str) -> Path:
    predictor = Predictor.from_pretrained(model)
    return save_labels(predictor.stream(images), work, formats=["labelme", "csv", "sheet"], label=label, root=images)


def most_uncertain(work: Path, count: int) -> list[str]:
    """Names of the images to correct first; the table is in this order."""
    with (work / "measurements.csv").open(newline="", encoding="utf-8") as file:
        return [row["image"] for row in csv.DictReader(file)][:count]


def train(images: Path, work: Path, model: str, corrected: int, **settings: Any) -> Path:
    names = work / "corrected.txt"
    names.write_text("\n".join(most_uncertain(work, corrected)) + "\n", encoding="utf-8")
    dataset = open_dataset(images, masks=work / "labelme", train_list=names)
    return finetune(dataset, output_dir=work / "run", base=model, **settings).checkpoint_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prelabel", "train"))
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("work", type=Path, help="folder for labels and the run")
    parser.add_argument("--model", default="condseg-lite-polyp")
    parser.add_argument("--label", default="foreground", help="name of the class")
    parser.add_argument("--corrected", type=int, default=20, help="number of images that were corrected")
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    if options.step == "prelabel":
        folder = prelabel(options.images, options.work, options.model, options.label)
        print(f"correct {folder / 'labelme'}, first: {', '.join(most_uncertain(folder, 3))}")
    else:
        print(train(options.images, options.work, options.model, options.corrected, epochs=options.epochs))


if __name__ == "__main__":
    main()
