"""Segments a video, a camera or a stream, and writes a video with the masks drawn over its frames."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from condseg_sdk.errors import ImageError, OutputError
from condseg_sdk.files import atomic_write, check_folder
from condseg_sdk.images.live import LiveVideo, Realtime, open_video
from condseg_sdk.images.video import Video
from condseg_sdk.images.video_writer import VideoWriter, add_sound, check_video_path
from condseg_sdk.options import check_flags, check_path
from condseg_sdk.predictor import Predictor
from condseg_sdk.provenance import check_replaced, seal_video
from condseg_sdk.segmentation import Segmentation

__all__ = ["OverlayVideo", "check_overlay_path", "save_overlay_video", "write_overlays"]


@dataclass(frozen=True)
class OverlayVideo:
    """A written video.

    Attributes:
        path: Path of the file.
        segmented: Number of frames that were segmented.
        with_region: Number of those whose mask is not empty.
        frames: Number of frames in the file; where frames were missing or late, the one before is repeated.
        late: Number of frames that `realtime` dropped because the network was still busy.
        surplus: Number of segmented frames without a place in the file, because time stamps lie closer together than
            the frame rate allows.
        rate: Number of frames per second.
        codec: What was written, such as "H.264 by ffmpeg".
        damage: Description of the missing frames of a damaged source; None if no frame is missing.
    """

    path: Path
    segmented: int
    with_region: int
    frames: int
    late: int
    surplus: int
    rate: float
    codec: str
    damage: str | None


def save_overlay_video(
    predictor: Predictor,
    source: str | os.PathLike[str] | Video | LiveVideo,
    path: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    min_score: float | None = None,
    batch_size: int = 8,
    tta: bool = False,
    tile: int | None = None,
    smooth: bool = False,
    realtime: bool = False,
    overwrite: bool = False,
) -> OverlayVideo:
    """Segment a video and write it again with the masks drawn over its frames.

    The video has the size and the frame rate of the source, and its sound where the program ffmpeg is installed
    (docs/video.md). A few frames are in memory at a time.

    Args:
        predictor: Predictor that segments the frames.
        source: Path of a video, "camera:0", the URL of a stream, or one of these that is open.
        path: File to write: .mp4, .m4v, .mov, .mkv or .avi. It appears when it is complete; an error leaves nothing.
        threshold: Probability in (0, 1) from which a pixel belongs to the mask. Default: the checkpoint's own.
        min_score: Lowest score of a frame, in (0, 1), below which its mask is empty. Default: no limit.
        batch_size: Number of frames that the network processes at once; with `realtime` it is one.
        tta: Whether to average over four flips of each frame.
        tile: Side in pixels of the tiles that each frame is cut into.
        smooth: Whether to smooth the predictions over time, as in `Predictor.stream`.
        realtime: Whether to take the newest frame whenever the network is free, and to drop those that came in between.
            A file is played at its frame rate.
        overwrite: Whether to replace a file that condseg did not write, or that was changed since.

    Returns:
        What was written.

    Raises:
        ImageError: The source cannot be opened or decoded.
        OptionError: The suffix is not one that can be written, or the value of another argument is not allowed.
        OutputError: The file must not be replaced, or cannot be written.

    Example:
        >>> from condseg_sdk.overlay_video import save_overlay_video
        >>> video = save_overlay_video(predictor, "colonoscopy.mp4", "overlay.mp4")
        >>> video.segmented, video.rate
        (3, 5.0)
    """
    check_flags(realtime=realtime, overwrite=overwrite)
    target = check_path("path", path)
    opened = source if isinstance(source, (Video, LiveVideo)) else open_video(source)
    check_overlay_path(target, opened, overwrite=overwrite)
    frames = Realtime(opened) if realtime else opened
    predictions = predictor.stream(
        frames,
        threshold=threshold,
        min_score=min_score,
        batch_size=batch_size,
        tta=tta,
        tile=tile,
        smooth=smooth,
    )
    return write_overlays(predictions, frames, target)


def check_overlay_path(path: Path, source: Video | LiveVideo, *, overwrite: bool) -> None:
    """Check before any work that a video can be written.

    Raises:
        OptionError: The suffix is not one that can be written.
        OutputError: The path is that of the source, or must not be replaced, or its folder cannot be written to.
    """
    check_video_path(path)
    if isinstance(source, Video) and path.exists() and source.path.exists() and path.samefile(source.path):
        raise OutputError(f"{path} is the video that is read; choose another name", path=path)
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist; create it, or choose another one", path=path)
    check_folder(path.parent)
    check_replaced([path], overwrite=overwrite)


def write_overlays(
    predictions: Iterable[Segmentation], source: Video | LiveVideo | Realtime, path: Path
) -> OverlayVideo:
    """Write the predictions for the frames of a video as a video.

    Args:
        predictions: Predictions in the order of the frames, such as those of `Predictor.stream(source)`. Where they end
            early, the video ends there.
        source: Source of the frames, of which rate, sound and damage are taken.
        path: File to write.

    Returns:
        What was written.

    Raises:
        ImageError: There is no prediction.
        OutputError: The file cannot be written.
    """
    written: list[OverlayVideo] = []

    def write(temporary: Path) -> None:
        written.append(_encode(iter(predictions), source, temporary, path))

    atomic_write(path, write)
    return written[0]


def _encode(
    predictions: Iterator[Segmentation], source: Video | LiveVideo | Realtime, temporary: Path, path: Path
) -> OverlayVideo:
    first = next(predictions, None)
    if first is None:
        raise ImageError(f"{source.name}: no frame was segmented, so no video is written")
    statement = json.dumps(first.statement())
    segmented = with_region = 0
    # The sources know their rate from the first frame on.
    with VideoWriter(temporary, source.rate, comment=f"condseg_sdk {statement}") as writer:
        for seg in _with(first, predictions):
            writer.write(np.asarray(seg.overlay()), seg.time or 0.0)
            segmented += 1
            with_region += not seg.is_empty
    if isinstance(source, (Video, Realtime)) and source.path is not None:
        add_sound(temporary, source.path, writer.frames / float(writer.rate))
    seal_video(temporary, statement)
    return OverlayVideo(
        path,
        segmented=segmented,
        with_region=with_region,
        frames=writer.frames,
        late=source.dropped if isinstance(source, Realtime) else 0,
        surplus=writer.grid.dropped,
        rate=float(writer.rate),
        codec=writer.codec,
        damage=source.damage,
    )


def _with(first: Segmentation, rest: Iterator[Segmentation]) -> Iterator[Segmentation]:
    yield first
    yield from rest
