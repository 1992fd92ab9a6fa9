"""A contact sheet: one page with the most uncertain predictions, the most uncertain one first."""

from __future__ import annotations

import io
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from condseg_sdk.labels.base import LabeledImage, LabelFormat, LabelOptions, Record, Write
from condseg_sdk.provenance import seal_png
from condseg_sdk.words import pluralize

__all__ = ["FORMAT"]

COLUMNS, ROWS = 6, 8
SIDE = 240  # of a thumbnail, in pixels
CAPTION = 34  # height of the two lines below it
MARGIN = 12
BACKGROUND, TEXT, FAINT = (250, 250, 250), (20, 20, 20), (110, 110, 110)
LONGEST_NAME = 34  # characters that fit below a thumbnail


def _record(image: LabeledImage, _options: LabelOptions) -> Record:
    thumbnail = image.seg.overlay()
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    name = image.name.file_name
    shown = name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"
    return {"thumbnail": thumbnail, "name": shown, "uncertainty": image.uncertainty, "regions": len(image.regions)}


def _finish(records: Iterable[Record], _options: LabelOptions) -> list[Write]:
    return [lambda path: path.write_bytes(_page(list(records)))]


def _page(records: list[Record]) -> bytes:
    columns = min(COLUMNS, len(records))
    rows = -(-len(records) // columns)
    cell = (SIDE + MARGIN, SIDE + CAPTION + MARGIN)
    page = Image.new("RGB", (columns * cell[0] + MARGIN, rows * cell[1] + MARGIN), BACKGROUND)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, record in enumerate(records):
        x, y = MARGIN + number % columns * cell[0], MARGIN + number // columns * cell[1]
        thumbnail = record["thumbnail"]
        page.paste(thumbnail, (x + (SIDE - thumbnail.width) // 2, y + (SIDE - thumbnail.height) // 2))
        regions = pluralize(record["regions"], "region")
        draw.text((x, y + SIDE + 2), record["name"], TEXT, font)
        draw.text((x, y + SIDE + 18), f"uncertainty {record['uncertainty']:.3f}, {regions}", FAINT, font)
    file = io.BytesIO()
    page.save(file, format="PNG")
    return seal_png(file.getvalue())


FORMAT = LabelFormat(
    "sheet",
    f"contact_sheet.png, the {COLUMNS * ROWS} most uncertain overlays",
    record=_record,
    run_files=("contact_sheet.png",),
    finish=_finish,
    kept=COLUMNS * ROWS,
)
