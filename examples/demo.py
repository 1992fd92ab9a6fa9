"""Segments images with the bundled polyp model and writes panels to look at: image, overlay, probability.

    python examples/demo.py                  # synthetic endoscopy scenes and one photograph of another kind
    python examples/demo.py my_frames/       # your own images: a file, a folder or a glob pattern

No network is needed: the weights are bundled. images/README.md says where the examples come from.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from condseg_sdk import CondsegError, Predictor, Segmentation
from condseg_sdk.images.load import load_image

MODEL = "condseg-lite-polyp"
EXAMPLES = Path(__file__).parent / "images"
# What a viewer of an example must know about it.
REMARKS = {f"synthetic_{seed}.jpg": "rendered, not a photograph" for seed in (0, 12, 16)}
REMARKS["unrelated_retina.jpg"] = "CC0; not a colon: the model knows polyps only"
PANEL_HEIGHT = 400
CAPTION_HEIGHT = 34


def main() -> int:
    parser = argparse.ArgumentParser(description=f"Segment images with {MODEL} and write panels to look at.")
    parser.add_argument("images", nargs="?", default=str(EXAMPLES), help="file, folder or glob pattern")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the panels (demo)")
    arguments = parser.parse_args()
    try:
        segment(arguments.images, arguments.out)
    except CondsegError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def segment(source: str, out: Path) -> None:
    """Write a panel for each image into `out`, and print where it is."""
    out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor.from_pretrained(MODEL)
    count = 0
    for count, seg in enumerate(predictor.stream(source), start=1):
        target = out / f"{count:02d}_{Path(seg.name).stem}.png"
        panel(seg).save(target)
        share, regions = seg.area / (seg.size[0] * seg.size[1]), len(seg.boxes())
        print(f"{target}: {share:6.1%} of the image, {regions} region{'s' if regions != 1 else ''}")
    print(f"{count} images segmented with {MODEL} on {predictor.device}; look at them in {out.resolve()}")
    print("Not a medical device: not for diagnosis or treatment.")


def panel(seg: Segmentation) -> Image.Image:
    """Return image, overlay and probability side by side under a caption, each PANEL_HEIGHT high."""
    height, width = seg.size
    shown = (max(1, round(width * PANEL_HEIGHT / height)), PANEL_HEIGHT)
    name = Path(seg.name).name
    titles = (f"{name}  {REMARKS.get(name, '')}", "mask", "probability, 0 to 1")
    pictures = (Image.fromarray(load_image(seg.source)), seg.overlay(), colored(seg.probability))
    gap, font = 6, ImageFont.load_default(15)
    sheet = Image.new("RGB", (3 * shown[0] + 2 * gap, CAPTION_HEIGHT + PANEL_HEIGHT), "black")
    draw = ImageDraw.Draw(sheet)
    for column, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
        left = column * (shown[0] + gap)
        draw.rectangle((left, 0, left + shown[0], CAPTION_HEIGHT), fill="black")
        draw.text((left + 6, 8), title, fill="white", font=font)
        sheet.paste(picture.resize(shown, Image.Resampling.LANCZOS), (left, CAPTION_HEIGHT))
    return sheet


def colored(probability: NDArray[np.float32]) -> Image.Image:
    """Return a probability map (H, W) as an image, from black over red to yellow."""
    levels = (probability * 255).round().astype(np.uint8)
    return ImageOps.colorize(Image.fromarray(levels), black="black", mid="crimson", white="yellow")


if __name__ == "__main__":
    sys.exit(main())
