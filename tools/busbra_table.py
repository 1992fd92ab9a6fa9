r"""For maintainers: describes BUS-BRA (breast ultrasound) in a CSV file for `condseg finetune` and `condseg evaluate`.

    python tools/busbra_table.py busbra --out busbra/pairs.csv
    condseg finetune busbra/pairs.csv ...
    condseg evaluate runs/breast/checkpoint busbra/pairs.csv --split test --group-by device

Fold 1 of the published five is the test split. Of the cases of the other folds 6 % are held out for validation. Both
views of a case are in the same split, and `group` is the case.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
from pathlib import Path

HELD_OUT = 0.06
TEST_FOLD = "1"


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    """Read a table of the dataset, by the ID of the image."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["ID"]: row for row in csv.DictReader(file)}


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("busbra", type=Path, help="folder with images, masks, bus_data.csv and 5-fold-cv.csv")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write; its paths are relative to it")
    options = parser.parse_args()
    facts = rows_of(options.busbra / "bus_data.csv")
    fold = {name: row["kFold"] for name, row in rows_of(options.busbra / "5-fold-cv.csv").items()}
    rest = sorted({facts[name]["Case"] for name in fold if fold[name] != TEST_FOLD}, key=int)
    held_out = set(random.Random(0).sample(rest, round(len(rest) * HELD_OUT)))
    here = os.path.relpath(options.busbra, options.out.parent)
    with options.out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "group", "split", "pathology", "device"])
        for name in fold:
            case, split = facts[name]["Case"], "test"
            if fold[name] != TEST_FOLD:
                split = "validation" if case in held_out else "train"
            image = next((options.busbra / "images").glob(f"{name}.*")).name
            mask = next((options.busbra / "masks").glob(f"{name}.*")).name
            place = (f"{here}/images/{image}", f"{here}/masks/{mask}")
            table.writerow([*place, case, split, facts[name]["Pathology"], facts[name]["Device"].split(" @")[0]])


if __name__ == "__main__":
    main()
