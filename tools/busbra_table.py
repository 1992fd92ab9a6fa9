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


def find(busbra: Path, folder: str, *stems: str) -> Path:
    """Find an image or a mask: the dataset is published with Images/bus_0001-l.png and Masks/mask_0001-l.png."""
    for name in (folder.capitalize(), folder):
        for stem in stems:
            if found := sorted((busbra / name).glob(f"{stem}.*")):
                return found[0]
    raise FileNotFoundError(f"{busbra} has no {folder}/{stems[0]}.*: pass the unpacked folder of BUS-BRA")


def table(busbra: Path, start: Path) -> list[list[str]]:
    """Return the rows of the table, the header first, with paths relative to `start`."""
    metadata = rows_of(busbra / "bus_data.csv")
    fold = {name: row["kFold"] for name, row in rows_of(busbra / "5-fold-cv.csv").items()}
    rest = sorted({metadata[name]["Case"] for name in fold if fold[name] != TEST_FOLD}, key=int)
    held_out = set(random.Random(0).sample(rest, round(len(rest) * HELD_OUT)))
    rows = [["image", "mask", "group", "split", "pathology", "device"]]
    for name in fold:
        case, split = metadata[name]["Case"], "test"
        if fold[name] != TEST_FOLD:
            split = "validation" if case in held_out else "train"
        image = find(busbra, "images", name)
        mask = find(busbra, "masks", f"mask_{name.removeprefix('bus_')}", name)
        paths = [Path(os.path.relpath(path, start)).as_posix() for path in (image, mask)]
        rows.append([*paths, case, split, metadata[name]["Pathology"], metadata[name]["Device"].split(" @")[0]])
    return rows


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("busbra", type=Path, help="folder with images, masks, bus_data.csv and 5-fold-cv.csv")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write; its paths are relative to it")
    options = parser.parse_args()
    for name in ("bus_data.csv", "5-fold-cv.csv"):
        if not (options.busbra / name).is_file():
            raise SystemExit(f"error: {options.busbra} has no {name}: pass the unpacked folder of BUS-BRA")
    if not options.out.parent.is_dir():
        raise SystemExit(f"error: the folder {options.out.parent} does not exist: make it, or choose another --out")
    try:
        rows = table(options.busbra, options.out.parent)
    except FileNotFoundError as error:
        raise SystemExit(f"error: {error}") from error
    with options.out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
