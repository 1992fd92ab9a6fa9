"""Reads the frames of a video with their true numbers, and reports missing frames."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import ImageError, errors_about
from condseg_sdk.files import is_utf8
from condseg_sdk.images.limits import require_file, source_path
from condseg_sdk.images.video_containers import Container, inspect_container
from condseg_sdk.opencv import cv2

__all__ = ["Video", "VideoFrame", "VideoInfo", "video_frames"]

logger = logging.getLogger("condseg_sdk")

# Silences FFmpeg's messages for each damaged block; `Video.damage` reports the damage in one line.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

TRIES = 64  # reads that may fail in a row at damaged frames if the number of frames is unknown
MANY = 100_000_000  # OpenCV reports such counts for streams without one
TOO_SHORT = (
    3  # frames of a broadcast format in which FFmpeg takes the field rate, twice the true one, for the frame rate
)
TIMED = frozenset({".m2ts", ".mpeg", ".mpg", ".mts", ".ts"})  # broadcast formats, whose time stamps reveal lost frames


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video.

    Attributes:
        number: Position in the video, from 0; missing frames keep their numbers.
        pixels: Image, RGB uint8 (H, W, 3), upright.
        time: Time at which it is shown, in seconds from the first frame: the file's time stamp, or where it has none,
            the number divided by the frame rate.
    """

    number: int
    pixels: NDArray[np.uint8]
    time: float


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video states.

    Attributes:
        size: (height, width) of the frames in pixels, upright.
        rate: Frames in a second; None where it is not stated.
        num_frames: Number of frames; None where it is not stated. Damaged videos have fewer.
    """

    size: tuple[int, int]
    rate: float | None
    num_frames: int | None


class Video:
    """A video file, read frame by frame as OpenCV's FFmpeg decodes it; one frame is in memory at a time.

    If frames are missing, the others keep their true numbers, by the container's index (AVI) or by time stamps (other
    formats). After the last frame, `damage` and a warning in the log say what is missing.

    Args:
        path: Path of a video file; `VIDEO_SUFFIXES` lists the usual suffixes.

    Attributes:
        path: Path of the file.
        name: Name for messages and predictions.
        rate: Number of frames per second as the file states it, set at the first frame; 0 where it states none.
        frame_count: Number of frames as the file states it, set at the first frame; None where it states none.
        damage: Description of the missing frames, set after the last frame; None if no frame is missing.

    Raises:
        ImageError: The file is missing or cannot be decoded; raised at the first frame. The path is empty; raised at
            once.

    Example:
        >>> video = Video("colonoscopy.mp4")
        >>> [frame.number for frame in video], video.damage
        ([0, 1, 2], None)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = source_path(path)
        self.name = str(self.path)
        self.rate = 0.0
        self.frame_count: int | None = None
        self.damage: str | None = None

    def __iter__(self) -> Iterator[VideoFrame]:
        with errors_about(self.path):
            yield from self._frames()

    @property
    def info(self) -> VideoInfo:
        """Size, rate and number of frames from the header, before a frame is decoded.

        Raises:
            ImageError: The file is missing or is not a video that can be decoded.

        Example:
            >>> Video("colonoscopy.mp4").info
            VideoInfo(size=(90, 120), rate=5.0, num_frames=3)
        """
        with errors_about(self.path):
            container, capture = self._open()
            try:
                width, height, rate, count = (
                    capture.get(name)
                    for name in (
                        cv2.CAP_PROP_FRAME_WIDTH,
                        cv2.CAP_PROP_FRAME_HEIGHT,
                        cv2.CAP_PROP_FPS,
                        cv2.CAP_PROP_FRAME_COUNT,
                    )
                )
            finally:
                capture.release()
            if width < 1 or height < 1:
                raise self._undecodable(container)
        known = int(count) if 0 < count < MANY else None
        return VideoInfo(
            (int(height), int(width)), rate or None, known if container.frames is None else container.frames
        )

    def _open(self) -> tuple[Container, cv2.VideoCapture]:
        require_file(self.path)
        if not is_utf8(self.path):  # OpenCV would end the process
            raise ImageError(f"{self.path}: OpenCV reads only videos with names in UTF-8; rename it")
        try:
            container = inspect_container(self.path)
        except OSError as error:
            raise ImageError(f"{self.path} cannot be read ({error}); check its permissions") from error
        return container, cv2.VideoCapture(str(self.path))

    def _undecodable(self, container: Container) -> ImageError:
        if container.is_damaged:
            return ImageError(f"{self.path} is damaged: no frame of it can be decoded; copy or record it again")
        return ImageError(f"{self.path} cannot be decoded as a video; convert it to H.264 in an .mp4 file")

    def _frames(self) -> Iterator[VideoFrame]:
        self.damage = None
        container, capture = self._open()
        try:
            numbers = _Numbers(capture, container, is_timed=self.path.suffix.lower() in TIMED)
            self.rate, self.frame_count = numbers.rate, numbers.count
            while (pixels := numbers.next_frame()) is not None:
                yield VideoFrame(numbers.current, pixels, numbers.time)
        finally:
            capture.release()
        if not numbers.decoded:
            raise self._undecodable(container)
        self.damage = numbers.damage()
        if self.damage is not None:
            logger.warning("%s is damaged: %s; the others keep their numbers", self.path, self.damage)


class _Numbers:
    """Reads a capture and numbers its frames."""

    def __init__(self, capture: cv2.VideoCapture, container: Container, *, is_timed: bool) -> None:
        self.capture = capture
        self.container = container
        self.current = -1
        self.time = 0.0  # of the current frame
        self.decoded = 0
        self.missing: list[range] = []
        self.has_hole = False  # whether a frame was decoded after a damaged one
        self.rate = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0.0
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0.0
        self.count = int(count) if 0 < count < MANY else None
        if container.frames is not None:
            self.count = container.frames
        self._is_timed = is_timed and (self.count is None or self.count > TOO_SHORT)
        self._follows_time = self._is_timed or (container.is_damaged and not container.counts_frames)
        self._start: float | None = None

    def next_frame(self) -> NDArray[np.uint8] | None:
        """Decode the next frame that is not damaged, and set `current` to its number; None at the end."""
        failures = 0
        while True:
            is_read, frame = self.capture.read()
            if is_read:
                break
            failures += 1
            rest = TRIES if self.count is None else self.count - self.decoded
            if failures > min(rest, TRIES) or not self.decoded:
                return None
        if failures:
            self.has_hole = True
            self._follows_time = True
        number = self._number(failures)
        if number > self.current + 1:
            self.missing.append(range(self.current + 1, number))
        self.current = number
        self.decoded += 1
        self.time = self._time()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def _time(self) -> float:
        """Return the time of the current frame, which never lies before that of the frame before it."""
        milliseconds = self.capture.get(cv2.CAP_PROP_POS_MSEC) - (self._start or 0.0)
        if milliseconds > 0 and not self.container.lost:  # behind a hole in an AVI file, OpenCV counts decoded frames
            return max(self.time, milliseconds / 1000)
        return max(self.time, self.current / self.rate if self.rate > 0 else 0.0)

    def _number(self, failures: int) -> int:
        number = self.current + 1
        milliseconds = self.capture.get(cv2.CAP_PROP_POS_MSEC)
        if self._start is None:
            self._start = milliseconds
        if self.container.lost:
            number += failures
            while number in self.container.lost:
                number += 1
            return number
        if self._follows_time and self.rate > 0 and milliseconds > 0:
            timed = round((milliseconds - self._start) * self.rate / 1000)
            last = self.count - 1 if self.count is not None and self.container.counts_frames else MANY
            number = max(number, min(timed, last))
        return number

    def damage(self) -> str | None:
        """Say which frames are missing, after the last one; None if the video is complete."""
        container, count = self.container, self.count
        if self.decoded == container.frames and not self.missing and not self.has_hole:
            return None  # the missing end of the file has no frame
        is_short = count is not None and self.current + 1 < count
        has_gap = self._is_timed and bool(self.missing) and count is not None and self.decoded < count
        is_known_short = container.counts_frames and is_short
        if not (self.has_hole or container.is_damaged or has_gap or is_known_short):
            return None
        missing = list(self.missing)
        if count is not None and is_short and (container.counts_frames or container.is_damaged):
            missing.append(range(self.current + 1, count))
        total = sum(map(len, missing))
        if not total:
            return f"it is incomplete: its end or a part of it is missing after {self.decoded} frames were read"
        places = ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in missing[:5])
        more = ", ..." if len(missing) > 5 else ""
        about = "" if container.counts_frames else "about "
        return f"{about}{total} of {about}{max(count or 0, self.current + 1)} frames are missing ({places}{more})"


def video_frames(path: str | os.PathLike[str]) -> Iterator[NDArray[np.uint8]]:
    """Read the frames of a video ; `Video` has their numbers, too.

    Yields:
        Frames, RGB uint8 (H, W, 3), upright.

    Raises:
        ImageError: The file is missing or cannot be decoded; raised at the first frame.
    """
    for frame in Video(path):
        yield frame.pixels
