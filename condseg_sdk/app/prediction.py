"""Segments an upload and prepares what the page shows.

The predictions keep the network's logits, so that another threshold needs no second run of the network. Shown images
are at most `PREVIEW` pixels wide and high; measurements and files have the image's own size.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk.app.settings import AppSettings
from condseg_sdk.app.uploads import Upload, check_frames
from condseg_sdk.images.load import load_image
from condseg_sdk.images.video import Video
from condseg_sdk.opencv import cv2
from condseg_sdk.predictor import Predictor
from condseg_sdk.segmentation import Segmentation, SegmentationDict
from condseg_sdk.words import pluralize

__all__ = ["Prediction", "View", "describe", "measurements", "segment", "show"]

PREVIEW = 1024
JPEG_QUALITY = 95
MAX_ROWS = 20  # regions in the table; the files have all of them
BATCH = 8


@dataclass(frozen=True)
class Frame:
    """The prediction for an image or for one frame, and a small JPEG of the image to draw on."""

    seg: Segmentation
    preview: bytes


@dataclass(frozen=True)
class Prediction:
    """The predictions for an upload.

    Attributes:
        frames: One for an image, otherwise one for each frame that could be decoded.
        upload: The file.
        model: Name of the model.
        device: Device that the network ran on.
        seconds: Time from opening the file to the last prediction.
        damage: Description of the missing frames of a video; None if there are none.
    """

    frames: tuple[Frame, ...]
    upload: Upload
    model: str
    device: str
    seconds: float
    damage: str | None = None

    def at(self, number: int, threshold: float) -> Segmentation:
        """Return the prediction for a frame, with another threshold; the network does not run."""
        return replace(self.frames[number].seg, threshold=threshold)

    def all_at(self, threshold: float) -> Iterator[Segmentation]:
        """Yield the predictions for all frames, with another threshold."""
        return (self.at(number, threshold) for number in range(len(self.frames)))


@dataclass(frozen=True)
class View:
    """What the page shows of one frame: images of at most `PREVIEW` pixels a side.

    Attributes:
        overlay: Image with the mask's contour, RGB.
        mask: Mask, 0 and 255.
        probability: Probability as an RGB image, from black (0) to yellow (1).
        uncertainty: Uncertainty in the same colors.
        values: Measurements at the image's own size.
    """

    overlay: Image.Image
    mask: Image.Image
    probability: Image.Image
    uncertainty: Image.Image
    values: SegmentationDict


def segment(
    upload: Upload,
    predictor: Predictor,
    settings: AppSettings,
    *,
    model: str,
    threshold: float,
    advance: Callable[[int, int | None], object] = lambda _done, _total: None,
) -> Prediction:
    """Segment an image, or all frames of a video or of a DICOM file.

    Args:
        upload: File that passed `check_upload`.
        predictor: The model.
        settings: Settings with the limit of frames, for videos whose header does not contain their number.
        model: Name of the model on the page.
        threshold: Probability in (0, 1).
        advance: Called with the number of finished frames and, if it is known, the total number.

    Raises:
        CondsegError: The file cannot be read, or the model failed.
    """
    start = time.perf_counter()
    frames: list[Frame] = []
    video = Video(upload.path) if upload.kind == "video" else None
    if upload.kind == "image":
        frames.append(_frame(predictor(upload.path, threshold=threshold), upload))
    else:
        stream = predictor.stream(video or [upload.path], threshold=threshold, batch_size=BATCH)
        for seg in stream:
            check_frames(upload.path, len(frames) + 1, settings)
            frames.append(_frame(seg, upload))
            advance(len(frames), upload.num_frames)
    seconds = time.perf_counter() - start
    damage = None if video is None else video.damage
    return Prediction(tuple(frames), upload, model, predictor.device, seconds, damage)


def _frame(seg: Segmentation, upload: Upload) -> Frame:
    """Name a prediction after the uploaded file, without its path on this machine; keep a video frame as JPEG."""
    image = Image.fromarray(load_image(seg.source, bits=seg.bits))
    source = _jpeg(image) if isinstance(seg.source, np.ndarray) else seg.source
    name = seg.name.replace(str(upload.path), upload.path.name)
    image.thumbnail((PREVIEW, PREVIEW), Image.Resampling.BOX)
    return Frame(replace(seg, source=source, name=name), _jpeg(image))


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def show(prediction: Prediction, number: int, threshold: float) -> View:
    """Make the page's view of a frame at a threshold."""
    seg = prediction.at(number, threshold)
    image = load_image(prediction.frames[number].preview)
    small = seg.resized((image.shape[0], image.shape[1]))
    return View(
        small.overlay(image), small.to_pil(), _colored(small.probability), _colored(small.uncertainty), seg.to_dict()
    )


def _colored(values: NDArray[np.float32]) -> Image.Image:
    levels = np.rint(values * 255).astype(np.uint8)
    colors = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return Image.fromarray(cv2.cvtColor(colors, cv2.COLOR_BGR2RGB))


def describe(prediction: Prediction) -> str:
    """Return one line that says what was segmented, by which model and how fast.

    Returns:
        Such as "frame.jpg: 640 x 480 pixels, segmented in 62 ms by condseg-lite-polyp on cpu".
    """
    first, count = prediction.frames[0].seg, len(prediction.frames)
    size = f"{first.size[1]} x {first.size[0]} pixels"
    by = f"by {prediction.model} on {prediction.device}"
    if prediction.upload.kind == "image":
        return f"{prediction.upload.path.name}: {size}, segmented in {1000 * prediction.seconds:.0f} ms {by}"
    each = f"{1000 * prediction.seconds / count:.0f} ms per frame"
    frames = f"{pluralize(count, 'frame')} of {size}"
    text = f"{prediction.upload.path.name}: {frames}, segmented in {prediction.seconds:.1f} s {by}"
    damage = "" if prediction.damage is None else f"; the video is damaged: {prediction.damage}"
    return f"{text}, {each}{damage}"


def measurements(values: SegmentationDict) -> str:
    """Write the measurements as Markdown: a line about the mask, and a table with a row for each region.

    Args:
        values: Prediction as `Segmentation.to_dict` returns it.
    """
    pixels = values["size"][0] * values["size"][1]
    regions = values["regions"]
    if not regions:
        return f"**No region** reaches the threshold of {values['threshold']:.2f}. Score {values['score']:.2f}."
    count = pluralize(len(regions), "region")
    facts = [f"{values['area']:,} pixels", f"{values['area'] / pixels:.1%} of the image"]
    if values["area_mm2"] is not None:
        facts.append(f"{values['area_mm2']:,.1f} mm²")
    if values["mean_probability"] is not None:
        facts.append(f"mean probability {values['mean_probability']:.2f}")
    facts.append(f"score {values['score']:.2f}")
    known = any(region["area_mm2"] is not None for region in regions)
    columns = ["region", "area (pixels)", "share", "box x0, y0, x1, y1"]
    columns += ["area (mm²)", "diameter (mm)"] if known else []
    rows = [columns, ["---:"] * len(columns)]
    for number, region in enumerate(regions[:MAX_ROWS], 1):
        box = ", ".join(map(str, region["box"]))
        row = [str(number), f"{region['area']:,}", f"{region['area'] / pixels:.2%}", box]
        lengths = (region["area_mm2"], region["diameter_mm"])
        row += ["" if length is None else f"{length:,.1f}" for length in lengths] if known else []
        rows.append(row)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    more = f"\n\nand {len(regions) - MAX_ROWS} smaller ones, which are in the files." if len(regions) > MAX_ROWS else ""
    return f"**{count}**: {', '.join(facts)}.\n\n{table}{more}"
