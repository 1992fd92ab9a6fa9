"""The images of the gallery: the examples of the repository, segmented by the bundled model while the site is built."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from condseg_sdk import Predictor

ROOT = Path(__file__).parents[2]
MODEL = "condseg-lite-polyp"
HEIGHT = 320

HEAD = f"""# Gallery

`{MODEL}` on the example images of the repository: the image, the overlay, the probability and the uncertainty. They are
made while this site is built. The scenes are rendered from geometry and show no patient, so they say nothing about
accuracy; for that see [Accuracy](accuracy.md). Real images of the data sets are not shown because their licenses do not
all permit it.
"""


def files() -> dict[str, str | bytes]:
    """Return the page and its images by name."""
    predictor = Predictor.from_pretrained(MODEL, device="cpu")
    page, images = HEAD, {}
    for file in sorted((ROOT / "examples" / "images").glob("synthetic_*.jpg")):
        seg, name = predictor(file), file.stem
        maps = [Image.fromarray((255 * m).round().astype(np.uint8)) for m in (seg.probability, seg.uncertainty)]
        images[f"assets/gallery/{name}.jpg"] = _panel([Image.open(file), seg.overlay(), *maps])
        regions = len(seg.boxes())
        share = seg.area / (seg.size[0] * seg.size[1])
        page += f"\n## {name}\n\n![Image, overlay, probability, uncertainty](assets/gallery/{name}.jpg)\n\n"
        page += f"{regions} region{'s' if regions != 1 else ''}, {share:.1%} of the image.\n"
    page += "\nMake your own: `make demo IMAGES=folder`, or `condseg predict folder --out results --save overlay`.\n"
    return {"gallery.md": page, **images}


def _panel(parts: list[Image.Image]) -> bytes:
    """Put images side by side at the same height, and encode them as JPEG."""
    parts = [part.convert("RGB").resize((round(part.width * HEIGHT / part.height), HEIGHT)) for part in parts]
    panel = Image.new("RGB", (sum(part.width for part in parts), HEIGHT))
    left = 0
    for part in parts:
        panel.paste(part, (left, 0))
        left += part.width
    file = io.BytesIO()
    panel.save(file, "JPEG", quality=88)
    return file.getvalue()
