"""Cameras, network streams, and videos that are played at their own rate.

A live source gives frames at its own pace. `Realtime` keeps only the newest frame and counts those that were dropped.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from condseg_sdk.errors import ImageError
from condseg_sdk.images.video import Video, VideoFrame
from condseg_sdk.opencv import cv2

__all__ = ["LiveVideo", "Realtime", "is_live", "open_video"]

TIMEOUT = 10_000
"""Milliseconds after which a network stream that sends nothing has failed."""

_CAMERA = re.compile(r"(?:camera:)?(\d{1,4})")
_URL = re.compile(r"(?:rtsps?|rtmps?|https?|udp|srt|tcp)://\S+")


def is_live(source: str) -> bool:
    """Whether a source is a camera or a URL: "camera:0", "0" (unless a file has this name), "rtsp://...".

    Example:
        >>> is_live("camera:0"), is_live("rtsp://10.0.0.5/scope"), is_live("film.mp4")
        (True, True, False)
    """
    if _URL.fullmatch(source):
        return True
    return _CAMERA.fullmatch(source) is not None and not os.path.lexists(source)


def open_video(source: str | os.PathLike[str]) -> Video | LiveVideo:
    """Return the frames of a file, a camera or a URL; nothing is opened before the first frame.

    Example:
        >>> open_video("colonoscopy.mp4").name, open_video("camera:0").name
        ('colonoscopy.mp4', 'camera:0')
    """
    return LiveVideo(source) if isinstance(source, str) and is_live(source) else Video(source)


class LiveVideo:
    """A camera or a network stream, frame by frame, until it ends.

    Args:
        source: "camera:0" or "0", the number of a camera, or a URL that OpenCV's FFmpeg reads (rtsp, rtmp, http, https,
            udp, srt, tcp).

    Attributes:
        name: Name for messages and predictions; user, password and query of a URL are left out.
        rate: Number of frames per second that the source states, set at the first frame; 0 where it states none.
        frame_count: Number of frames, for a file behind a URL; None where it is unknown.
        damage: None; a live source does not tell which frames are missing.

    Raises:
        ImageError: The source cannot be opened, or gives no frame; raised at the first frame.

    Example:
        >>> LiveVideo("rtsp://nurse:secret@10.0.0.5/scope").name
        'rtsp://10.0.0.5/scope'
    """

    def __init__(self, source: str) -> None:
        camera = _CAMERA.fullmatch(source)
        if camera is None and not _URL.fullmatch(source):
            raise ImageError(f"{source} is not a live source; give camera:0 or a URL such as rtsp://10.0.0.5/scope")
        self._camera = None if camera is None else int(camera[1])
        self._source = source
        shown = re.sub(r"[?#].*", "", re.sub(r"//[^/@\s]*@", "//", source))  # a query may contain a key
        self.name = shown if camera is None else f"camera:{self._camera}"
        self.rate = 0.0
        self.frame_count: int | None = None
        self.damage: str | None = None

    @property
    def is_paced(self) -> bool:
        """Whether frames come at the time they are shown; a file behind http(s) is read as fast as it comes."""
        return not self._source.startswith("http")

    def __iter__(self) -> Iterator[VideoFrame]:
        capture = self._open()
        try:
            rate = capture.get(cv2.CAP_PROP_FPS)
            self.rate = rate if np.isfinite(rate) and rate > 0 else 0.0
            count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self.frame_count = int(count) if self._camera is None and 0 < count < 100_000_000 else None
            start, number = time.monotonic(), -1
            while True:
                is_read, pixels = capture.read()
                if not is_read:
                    break
                number += 1
                shown = time.monotonic() - start
                if number == 0:
                    start, shown = time.monotonic(), 0.0
                if not self.is_paced and self.rate:
                    shown = number / self.rate
                yield VideoFrame(number, np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8), shown)
        finally:
            capture.release()
        if number < 0:
            raise ImageError(f"{self.name} was opened but gives no frame; {self._remedy}")

    def _open(self) -> cv2.VideoCapture:
        if self._camera is not None:
            capture = cv2.VideoCapture(self._camera)
        else:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT]
            capture = cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            capture.release()
            raise ImageError(f"{self.name} cannot be opened; {self._remedy}")
        return capture

    @property
    def _remedy(self) -> str:
        if self._camera is not None:
            return "check that it is connected, that no other program uses it and that you may use it"
        return "check the address, the password and the network"


class Realtime:
    """The newest frame of a source whenever one is asked for; a thread reads the source and drops late frames.

    A file is played at the times of its frames, as a camera would give them.

    Args:
        source: A video, a camera or a stream.

    Attributes:
        dropped: Number of frames that were dropped so far.

    Example:
        >>> frames = Realtime(Video("colonoscopy.mp4"))
        >>> seen = [frame.number for frame in frames]
        >>> len(seen) + frames.dropped
        3
    """

    def __init__(self, source: Video | LiveVideo) -> None:
        self.source = source
        self.dropped = 0
        self._change = threading.Condition()
        self._newest: VideoFrame | None = None
        self._ended = False
        self._error: Exception | None = None

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def rate(self) -> float:
        """Number of frames per second of the source."""
        return self.source.rate

    @property
    def frame_count(self) -> int | None:
        """Number of frames of the source, where it is known."""
        return self.source.frame_count

    @property
    def damage(self) -> str | None:
        """Description of the missing frames of a file."""
        return self.source.damage

    @property
    def path(self) -> Path | None:
        """Path of the source, if it is a file."""
        return self.source.path if isinstance(self.source, Video) else None

    def __iter__(self) -> Iterator[VideoFrame]:
        self.dropped, self._newest, self._ended, self._error = 0, None, False, None
        reader = threading.Thread(target=self._read, name="condseg-realtime", daemon=True)  # it may wait for a camera
        reader.start()
        try:
            while True:
                with self._change:
                    self._change.wait_for(lambda: self._newest is not None or self._ended)
                    frame, self._newest = self._newest, None
                if frame is None:
                    break
                yield frame
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        """Read the source to its end, in a thread of its own."""
        start: float | None = None
        is_paced = isinstance(self.source, LiveVideo) and self.source.is_paced
        try:
            for frame in self.source:
                start = time.monotonic() - frame.time if start is None else start
                with self._change:
                    if not is_paced:
                        self._change.wait_for(lambda: self._ended, max(0.0, start + frame.time - time.monotonic()))
                    if self._ended:
                        return
                    self.dropped += self._newest is not None
                    self._newest = frame
                    self._change.notify_all()
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that uses the frames
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()
