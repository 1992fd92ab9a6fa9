"""Writes the files of a prediction for download: one file per kind for an image, a ZIP archive for many frames."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from condseg_sdk.app.prediction import Prediction
from condseg_sdk.errors import OptionError, OutputError
from condseg_sdk.files import write_bytes
from condseg_sdk.images.load import load_image
from condseg_sdk.labels import FORMATS
from condseg_sdk.labels.write import save_labels
from condseg_sdk.opencv import cv2
from condseg_sdk.segmentation import SaveKind

__all__ = ["KINDS", "VIDEO", "write_results"]

MAPS: tuple[SaveKind, ...] = ("mask", "overlay", "probability", "uncertainty", "json")
LABELS = ("coco", "csv")
VIDEO = "video"
KINDS: tuple[str, ...] = (*MAPS, *LABELS, VIDEO)
"""What can be written: a file for each image or frame, one file about all of them, and the overlay of a video."""

DEFAULT_RATE = 25.0  # of a video whose header states none


def write_results(prediction: Prediction, threshold: float, kinds: Sequence[str], folder: Path) -> list[Path]:
    """Write files at the image's own size.

    Args:
        prediction: The predictions.
        threshold: Lowest probability at which a pixel belongs to the mask, in (0, 1).
        kinds: Some of `KINDS`.
        folder: Empty folder to write to.

    Returns:
        The files. The files for the frames of a video or DICOM file are in one ZIP archive.

    Raises:
        OptionError: No kind is chosen, or one is unknown or does not fit the file.
        OutputError: A file cannot be written.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise OptionError(f"{unknown[0]!r} is not one of {', '.join(KINDS)}", option="kinds")
    if not kinds:
        raise OptionError("no kind of file is chosen; choose one or several", option="kinds")
    if VIDEO in kinds and prediction.upload.kind == "image":
        raise OptionError("an image has no video; choose another kind of file", option="kinds")
    stem = prediction.upload.path.stem
    maps = [kind for kind in MAPS if kind in kinds]
    files = []
    if prediction.upload.kind == "image":
        seg = prediction.at(0, threshold)
        files += [write_bytes(folder / _name(stem, kind), seg.encode(kind)) for kind in maps]
    elif maps:
        files.append(folder / f"{stem}.zip")
        _write_archive(files[0], prediction, threshold, maps)
    if labels := [kind for kind in LABELS if kind in kinds]:
        save_labels(prediction.all_at(threshold), folder, formats=labels)
        files += [folder / file for kind in labels for file in FORMATS[kind].run_files]
    if VIDEO in kinds:
        files.append(folder / f"{stem}_overlay.webm")
        _write_video(files[-1], prediction, threshold)
    return files


def _name(stem: str, kind: SaveKind) -> str:
    return f"{stem}.json" if kind == "json" else f"{stem}_{kind}.png"


def _write_archive(path: Path, prediction: Prediction, threshold: float, kinds: Sequence[SaveKind]) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # PNG files do not get smaller
        for seg in prediction.all_at(threshold):
            for kind in kinds:
                archive.writestr(_name(f"{path.stem}_{seg.frame or 0:06d}", kind), seg.encode(kind))


def _write_video(path: Path, prediction: Prediction, threshold: float) -> None:
    """Write the overlays as VP8 in WebM, which every browser plays and OpenCV's FFmpeg can encode."""
    height, width = prediction.frames[0].seg.size
    rate = prediction.upload.rate or DEFAULT_RATE
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), rate, (width, height))
    if not writer.isOpened():
        raise OutputError(f"{path.name} cannot be written: this build of OpenCV has no VP8 encoder; choose PNG files")
    try:
        for seg in prediction.all_at(threshold):
            overlay = np.asarray(seg.overlay(load_image(seg.source)))
            writer.write(cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
