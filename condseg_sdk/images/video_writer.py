"""Writes video files frame by frame: H.264 with sound where the program ffmpeg is installed, else MPEG-4 by OpenCV.

The wheels of OpenCV contain no H.264 encoder, and browsers play nothing else in an .mp4 file that can be written here.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import OptionError, OutputError
from condseg_sdk.files import atomic_write, is_utf8
from condseg_sdk.opencv import cv2

__all__ = ["VIDEO_FORMATS", "FrameGrid", "VideoWriter", "add_sound", "check_video_path", "has_ffmpeg"]

logger = logging.getLogger("condseg_sdk")


@dataclass(frozen=True)
class VideoFormat:
    """How a kind of file is written.

    Attributes:
        has_h264: Whether ffmpeg writes H.264 into it; OpenCV writes it otherwise.
        fourcc: Codec that OpenCV writes.
        sound: Codec of the sound for ffmpeg; "copy" where any codec may be in the file.
    """

    has_h264: bool
    fourcc: str
    sound: str


_MP4 = VideoFormat(has_h264=True, fourcc="mp4v", sound="aac")
VIDEO_FORMATS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": _MP4,
    ".mkv": VideoFormat(has_h264=True, fourcc="mp4v", sound="copy"),
    ".avi": VideoFormat(has_h264=False, fourcc="MJPG", sound="pcm_s16le"),
}
"""Formats that can be written, by suffix."""

DEFAULT_RATE = 25.0  # where the source states none, or one that no video has
RATES = (0.1, 240.0)
MAX_GAP = 60.0  # seconds; a longer jump of the time stamps is a fault of the file, and is not filled


def check_video_path(path: Path) -> VideoFormat:
    """Return the format of a video file to be written.

    Raises:
        OptionError: The suffix is not one of `VIDEO_FORMATS`.
    """
    if path.suffix.lower() not in VIDEO_FORMATS:
        raise OptionError(f"{path}: a video is written as one of {', '.join(VIDEO_FORMATS)}", option="path")
    return VIDEO_FORMATS[path.suffix.lower()]


class FrameGrid:
    """Places frames with time stamps on the grid of a constant frame rate.

    A frame whose time lies between two places takes the next free one, at most one place late; if that is taken, too,
    it is dropped. Places without a frame, as behind missing or late frames, repeat the one before, so that times are
    kept.

    Args:
        rate: Number of frames per second.

    Attributes:
        dropped: Number of frames that were dropped.

    Example:
        >>> grid = FrameGrid(10)
        >>> [grid.copies(time) for time in (0.0, 0.1, 0.4, 0.41, 0.42, 0.5, 0.6)]
        [1, 1, 3, 1, None, 1, 1]
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.dropped = 0
        self._last = -1
        self._offset = 0.0

    def copies(self, time: float) -> int | None:
        """Return how many places a frame ends: its own and those before it without a frame; None to drop it."""
        exact = (time - self._offset) * self.rate
        if exact - self._last > MAX_GAP * self.rate:
            logger.warning("a jump of %.0f s in the time stamps is left out", time - self._offset)
            self._offset += (exact - self._last - 1) / self.rate
            exact = self._last + 1.0
        place = max(round(exact), self._last + 1)
        if place - exact > 1 + 1e-6:
            self.dropped += 1
            return None
        copies = place - self._last
        self._last = place
        return copies


@cache
def has_ffmpeg() -> bool:
    """Whether the program ffmpeg is installed and writes H.264."""
    program = shutil.which("ffmpeg")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b" libx264 " in listed.stdout


class _Encoder(Protocol):
    def write(self, pixels: NDArray[np.uint8]) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class _Ffmpeg:
    """Sends raw frames to the program ffmpeg."""

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction, comment: str) -> None:
        height, width = size
        self._path = path
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this; a pipe could fill up
        command = [
            *("ffmpeg", "-hide_banner", "-loglevel", "error", "-y"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0"),
            *("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p"),
            *("-metadata", f"comment={comment}", "-movflags", "+faststart", f"file:{path}"),
        ]
        # In a group of its own: Ctrl-C in a terminal must not end it before the video is complete.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            start_new_session=True,
        )

    def write(self, pixels: NDArray[np.uint8]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pixels.data)
        except OSError as error:  # it has ended, and its message says why
            self.close()
            raise OutputError(f"ffmpeg stopped ({error}); free space or memory", path=self._path) from error

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the exit code says it
            self._process.stdin.close()
        code = self._process.wait()
        with self._messages:
            self._messages.seek(0)
            text = self._messages.read().decode(errors="replace")
        if code:
            raise OutputError(f"the video cannot be written ({_last_line(text)}); free space, or choose another folder")

    def abort(self) -> None:
        self._process.kill()
        self._process.communicate()  # closes the pipe and waits
        self._messages.close()


class _OpenCv:
    """Writes frames with OpenCV."""

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction, fourcc: str) -> None:
        if not is_utf8(path):
            raise OutputError(f"{path}: OpenCV writes only to paths in UTF-8; choose another one", path=path)
        self._path = path
        code = cv2.VideoWriter.fourcc(*fourcc)
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, float(rate), size[::-1])
        if not self._writer.isOpened():
            raise OutputError(f"{path} cannot be written by OpenCV; choose another folder or format", path=path)

    def write(self, pixels: NDArray[np.uint8]) -> None:
        self._writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self._writer.release()

    abort = close


class VideoWriter:
    """Writes a video, of which the first frame decides the size. Use it in a `with` block.

    Args:
        path: File to write, with a suffix of `VIDEO_FORMATS`. It is complete after the block.
        rate: Number of frames per second of the source; 25 are written where it is not between 0.1 and 240.
        comment: Text for the file's metadata, which ffmpeg writes.

    Attributes:
        codec: What is written, such as "H.264 by ffmpeg".
        frames: Number of frames that were written, repeated ones included.
        grid: Places of the frames.

    Raises:
        OptionError: The suffix is not one that can be written.
        OutputError: The file cannot be written.
    """

    def __init__(self, path: Path, rate: float, *, comment: str = "") -> None:
        self._format = check_video_path(path)
        self._path = path
        self._comment = comment
        is_usual = np.isfinite(rate) and RATES[0] <= rate <= RATES[1]
        self.rate = Fraction(rate if is_usual else DEFAULT_RATE).limit_denominator(1001)
        self.grid = FrameGrid(float(self.rate))
        self.frames = 0
        self._uses_ffmpeg = self._format.has_h264 and has_ffmpeg()
        names = {"mp4v": "MPEG-4", "MJPG": "Motion JPEG"}
        self.codec = "H.264 by ffmpeg" if self._uses_ffmpeg else f"{names[self._format.fourcc]} by OpenCV"
        self._encoder: _Encoder | None = None
        self._size = (0, 0)
        self._before: NDArray[np.uint8] | None = None

    def write(self, pixels: NDArray[np.uint8], time: float) -> None:
        """Add a frame.

        Args:
            pixels: Frame, RGB uint8 (H, W, 3). One of another size than the first is resized.
            time: Time of the frame in seconds from the beginning of the video.
        """
        copies = self.grid.copies(time)
        if copies is None:
            return
        pixels = self._even(pixels)
        if self._encoder is None:
            self._size = (pixels.shape[0], pixels.shape[1])
            self._encoder = self._open()
        elif pixels.shape[:2] != self._size:
            pixels = np.asarray(cv2.resize(pixels, self._size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        for _ in range(copies - 1):
            self._encoder.write(pixels if self._before is None else self._before)
        self._encoder.write(pixels)
        self.frames += copies
        self._before = pixels

    def _even(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Repeat the last row or column of an odd side: the codecs halve the resolution of colors."""
        height, width = pixels.shape[:2]
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        return np.ascontiguousarray(pixels)

    def _open(self) -> _Encoder:
        if self._uses_ffmpeg:
            return _Ffmpeg(self._path, self._size, self.rate, self._comment)
        return _OpenCv(self._path, self._size, self.rate, self._format.fourcc)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._encoder is None:
            return
        if error is None:
            self._encoder.close()
        else:
            self._encoder.abort()


def add_sound(path: Path, source: Path, seconds: float) -> None:
    """Add the sound of the source to a written video, cut at the video's end. A source without sound changes nothing.

    Without ffmpeg, and where ffmpeg cannot convert the sound, a line in the log says so and the video stays silent.

    Args:
        path: The written video.
        source: Video whose sound is taken.
        seconds: Length of the written video.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        logger.warning("the program ffmpeg is not installed: the video has no sound, and not every browser plays it")
        return

    def write(temporary: Path) -> None:
        command: Sequence[str] = [
            *(program, "-hide_banner", "-loglevel", "error", "-y", "-i", f"file:{path}", "-i", f"file:{source}"),
            *("-map", "0:v", "-map", "1:a?", "-map_metadata", "0", "-map_metadata:s:a", "-1", "-map_chapters", "-1"),
            *("-c:v", "copy", "-c:a", VIDEO_FORMATS[path.suffix.lower()].sound, "-t", f"{seconds:.6f}"),
            *("-movflags", "+faststart", f"file:{temporary}"),
        ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False
        )
        if done.returncode:
            raise OutputError(_last_line(done.stderr.decode(errors="replace")), path=path)

    try:
        atomic_write(path, write)
    except OutputError as error:
        logger.warning("%s: its sound could not be added (%s); the video is complete without it", source, error)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "ffmpeg gave no reason"
