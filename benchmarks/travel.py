r"""Performance of a checkpoint in other hospitals: metrics by group, missed regions, and false alarms.

    python benchmarks/travel.py condseg-lite-polyp polypgen --group "^(c\d)_"

Overlap is the mean over the images with a region, at 256x256 as in the paper and at the images' own sizes. A region is
missed if the predicted mask does not touch the ground truth. A false alarm is an image without a region whose predicted
mask is not empty. `condseg evaluate` measures more, and takes several times as long.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from condseg_sdk import CondsegError, Predictor
from condseg_sdk.data import Pair, load_mask, resize_mask
from condseg_sdk.evaluation.evaluate import choose_pairs
from condseg_sdk.evaluation.result import PAPER_SIZE
from condseg_sdk.field_of_view import FieldOfView
from condseg_sdk.metrics import score
from condseg_sdk.metrics.intervals import estimate_mean

COLUMNS = ("group", "images", "mIoU", "mDSC", "mIoU, own size", "missed", "without a region", "of these marked")


@dataclass(frozen=True)
class Result:
    """The measurements of one image.

    Attributes:
        name: Name of the image.
        foreground: Share of the image that is foreground in the ground truth.
        marked: Share of the image that is foreground in the prediction.
        iou: IoU at 256x256.
        dice: Dice at 256x256.
        own_iou: IoU at the image's own size.
        outside: Share of the ground truth's foreground that lies outside of the field of view.
    """

    name: str
    foreground: float
    marked: float
    iou: float
    dice: float
    own_iou: float
    outside: float


def measure(predictor: Predictor, pairs: Sequence[Pair], threshold: float | None) -> list[Result]:
    """Measure each image, in order."""
    results = []
    predictions = predictor.stream([pair.image for pair in pairs], threshold=threshold)
    for pair, seg in tqdm(zip(pairs, predictions, strict=True), total=len(pairs), unit="image"):
        truth, mask = resize_mask(load_mask(pair.mask), seg.size), seg.mask
        small = score(seg.resized(PAPER_SIZE).mask, resize_mask(truth, PAPER_SIZE))
        left, top, right, bottom = (int(edge) for edge in seg.field_of_view or (0, 0, *seg.size[::-1]))
        inside = np.count_nonzero(truth[top:bottom, left:right])
        results.append(
            Result(
                name=pair.name,
                foreground=float(truth.mean()),
                marked=float(mask.mean()),
                iou=small.iou,
                dice=small.dice,
                own_iou=score(mask, truth).iou,
                outside=1 - inside / np.count_nonzero(truth) if truth.any() else 0.0,
            )
        )
    return results


def row(group: str, results: Sequence[Result]) -> str:
    """Format one row of the table."""

    def mean(values: list[float]) -> str:
        if not values:
            return "-"
        found = estimate_mean(values, seed=0)
        interval = "" if np.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
        return f"{found.value:.4f}{interval}"

    def share(count: int, of: int) -> str:
        return f"{count} ({100 * count / of:.1f} %)" if of else "-"

    shows = [result for result in results if result.foreground]
    without = [result for result in results if not result.foreground]
    cells = (
        group,
        str(len(results)),
        mean([result.iou for result in shows]),
        mean([result.dice for result in shows]),
        mean([result.own_iou for result in shows]),
        share(sum(result.own_iou == 0 for result in shows), len(shows)),
        str(len(without)),
        share(sum(result.marked > 0 for result in without), len(without)),
    )
    return f"| {' | '.join(cells)} |"


def table(title: str, results: Sequence[Result], group: Callable[[str], str]) -> str:
    """Format a Markdown table with one row for each group and one for all."""
    names = sorted({group(result.name) for result in results})
    lines = [row(name, [result for result in results if group(result.name) == name]) for name in names]
    if len(names) > 1:
        lines.append(row("all", results))
    head = f"| {' | '.join(COLUMNS)} |"
    return "\n".join((f"### {title}", "", head, "|---" * len(COLUMNS) + "|", *lines, ""))


def grouping(pattern: str | None) -> Callable[[str], str]:
    """Return a function that finds the group in the name of an image, by the first group of a pattern."""
    if pattern is None:
        return lambda _: "all"
    expression = re.compile(pattern)

    def group(name: str) -> str:
        match = expression.search(name)
        return match[1] if match else "other"

    return group


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name, folder, org/name or .onnx file")
    parser.add_argument("data", help="folder with images/ and masks/, or any other layout of docs/data.md")
    parser.add_argument(
        "--group", help="regular expression whose first group finds the hospital in the name of an image"
    )
    parser.add_argument("--list", type=Path, help="text file with the names of the images, one per line (default: all)")
    parser.add_argument("--every", type=int, default=1, help="only every n-th image, for a first look")
    views = get_args(FieldOfView)
    parser.add_argument("--field-of-view", choices=views, help="instead of the checkpoint's own")
    parser.add_argument("--threshold", type=float, help="instead of the checkpoint's own")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="file for the metrics of each image")
    options = parser.parse_args()
    try:
        group = grouping(options.group)
        pairs = choose_pairs(options.data, names=options.list)[:: options.every]
        predictor = Predictor.from_pretrained(options.model, device=options.device)
        if options.field_of_view:
            changed: dict[str, Any] = {"field_of_view": options.field_of_view}
            preprocessing = replace(predictor.preprocessing, **changed)
            predictor = Predictor.from_pretrained(options.model, device=options.device, preprocessing=preprocessing)
        results = measure(predictor, pairs, options.threshold)
    except (CondsegError, re.error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    threshold = options.threshold or predictor.threshold
    view = predictor.preprocessing.field_of_view
    print(table(f"{options.model}, threshold {threshold:g}, field of view {view}", results, group))
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
