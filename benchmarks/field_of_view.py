r"""The search for the field of view: how often images are cut, how much ground truth is lost, and its time.

    python benchmarks/field_of_view.py polypgen --group "^(c\d)_" --sheet sheet.jpg

An image counts as wrong if more than 0.5 % of the foreground of its ground truth is cropped. `--sheet` draws the
rectangles on every n-th image, which also shows margins that were left.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from travel import grouping

from condseg_sdk import CondsegError
from condseg_sdk.data import load_pair
from condseg_sdk.evaluation.evaluate import choose_pairs
from condseg_sdk.field_of_view import Box, find_field_of_view

WRONG = 0.005
CELL, COLUMNS = 200, 10


@dataclass(frozen=True)
class Cut:
    """The result for one image.

    Attributes:
        name: Name of the image.
        kept: Share of its area that was kept.
        lost: Share of the ground truth's foreground that was cut off.
        seconds: CPU time.
    """

    name: str
    kept: float
    lost: float
    seconds: float


def judge(name: str, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[Cut, Box | None]:
    """Look for the field of view of an image."""
    began = time.process_time()
    box = find_field_of_view(image)
    seconds = time.process_time() - began
    if box is None:
        return Cut(name, 1.0, 0.0, seconds), None
    left, top, right, bottom = box
    kept = (right - left) * (bottom - top) / (image.shape[0] * image.shape[1])
    foreground = np.count_nonzero(mask)
    lost = 1 - np.count_nonzero(mask[top:bottom, left:right]) / foreground if foreground else 0.0
    return Cut(name, kept, lost, seconds), box


def cell(image: NDArray[np.uint8], box: Box | None) -> NDArray[np.uint8]:
    """Draw one square of the sheet."""
    scale = CELL / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if box is not None:
        left, top, right, bottom = (round(edge * scale) for edge in box)
        cv2.rectangle(small, (left, top), (right - 1, bottom - 1), (0, 255, 0), 2)
    square = np.full((CELL, CELL, 3), 255, np.uint8)
    square[: small.shape[0], : small.shape[1]] = small[:CELL, :CELL]
    return square


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with images/ and masks/, or any other layout of docs/data.md")
    parser.add_argument(
        "--group", help="regular expression whose first group finds the hospital in the name of an image"
    )
    parser.add_argument("--sheet", type=Path, help="image file to draw the rectangles in")
    parser.add_argument(
        "--every", type=int, default=12, help="draw every n-th image on the sheet (default: %(default)s)"
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    cuts: list[Cut] = []
    cells: list[NDArray[np.uint8]] = []
    try:
        group = grouping(options.group)
        for number, pair in enumerate(tqdm(choose_pairs(options.data), unit="image")):
            image, mask = load_pair(pair)
            cut, box = judge(pair.name, image, mask)
            cuts.append(cut)
            if options.sheet and number % options.every == 0:
                cells.append(cell(image, box))
    except (CondsegError, re.error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("| group | images | cut | area kept of these, median | wrong | ms, median |\n|---|---|---|---|---|---|")
    for name in sorted({group(cut.name) for cut in cuts}):
        part = [cut for cut in cuts if group(cut.name) == name]
        kept = [cut.kept for cut in part if cut.kept < 1]
        median = f"{100 * np.median(kept):.0f} %" if kept else "-"
        wrong = sum(cut.lost > WRONG for cut in part)
        milliseconds = 1000 * np.median([cut.seconds for cut in part])
        print(f"| {name} | {len(part)} | {len(kept)} | {median} | {wrong} | {milliseconds:.1f} |")
    for cut in sorted(cuts, key=lambda cut: -cut.lost)[:10]:
        if cut.lost > WRONG:
            print(f"{cut.name}: {100 * cut.lost:.1f} % of the ground truth's foreground lost")
    if options.sheet:
        cells += [np.full((CELL, CELL, 3), 255, np.uint8)] * (-len(cells) % COLUMNS)
        rows = [np.hstack(cells[i * COLUMNS : (i + 1) * COLUMNS]) for i in range(math.ceil(len(cells) / COLUMNS))]
        cv2.imwrite(str(options.sheet), np.vstack(rows)[..., ::-1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
