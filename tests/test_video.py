"""Frames of videos keep their true numbers, and what is missing of a damaged one is said; whole videos raise no alarm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from condseg_sdk.errors import ImageError
from condseg_sdk.images import find_images
from condseg_sdk.video import Video, video_frames

FRAMES = 40
CODECS = {".avi": "MJPG", ".mp4": "mp4v", ".mkv": "mp4v", ".webm": "VP80"}


def frame(number: int) -> NDArray[np.uint8]:
    """A noisy image with its number in its gray levels."""
    noise = np.random.default_rng(number).integers(0, 30, (96, 128, 3))
    return (noise + 5 * number).astype(np.uint8)


def number_of(pixels: NDArray[np.uint8]) -> int:
    return round((float(pixels.mean()) - 14.5) / 5)


def write(path: Path, count: int = FRAMES) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*CODECS[path.suffix]), 10, (128, 96))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {path.suffix}")
    for number in range(count):
        writer.write(frame(number))
    writer.release()
    return path


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def hole(data: bytes) -> bytes:
    size = len(data) // 10
    middle = len(data) // 2
    return data[:middle] + bytes(size) + data[middle + size :]


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("count", [1, 2, FRAMES])
def test_a_whole_video_raises_no_alarm(
    suffix: str, count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = Video(write(tmp_path / f"film{suffix}", count))
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        frames = list(video)
    assert [item.number for item in frames] == list(range(count))
    assert [item.pixels.shape for item in frames] == [(96, 128, 3)] * count
    assert video.damage is None
    assert not caplog.records


@pytest.mark.parametrize("damaging", [half, hole])
@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".webm"])
def test_what_is_missing_of_a_damaged_video_is_said(
    suffix: str, damaging: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / f"film{suffix}")
    path.write_bytes(damaging(path.read_bytes()))
    video = Video(path)
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        numbers = [item.number for item in video]
    assert 0 < len(numbers) < FRAMES
    assert video.damage is not None
    assert f"{path} is damaged: " in caplog.records[-1].message
    assert "frames are missing" in caplog.records[-1].message


def test_frames_after_a_hole_keep_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "film.avi")
    path.write_bytes(hole(path.read_bytes()))
    video = Video(path)
    frames = [(item.number, number_of(item.pixels)) for item in video]
    assert frames[-1] == (FRAMES - 1, FRAMES - 1)
    # The frame in which the hole begins may be decoded in part.
    assert sum(said != seen for said, seen in frames) <= 1
    missing = sorted({*range(FRAMES)} - {said for said, _ in frames})
    assert video.damage == f"{len(missing)} of {FRAMES} frames are missing ({missing[0]} to {missing[-1]})"


def test_a_hole_in_an_mp4_file(tmp_path: Path) -> None:
    path = write(tmp_path / "film.mp4")
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    middle = begin + (data.index(b"moov") - begin) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    video = Video(path)
    numbers = [item.number for item in video]
    assert numbers[-1] == FRAMES - 1
    assert numbers == sorted({*numbers})
    assert video.damage is None or "missing" in video.damage
    assert (video.damage is None) == (len(numbers) == FRAMES)


def test_rgb_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in (0, 100, 200):
        writer.write(np.full((48, 64, 3), (0, 0, level), np.uint8))  # OpenCV's order: red is last
    writer.release()
    frames = list(video_frames(path))
    assert [item.shape for item in frames] == [(48, 64, 3)] * 3
    for item, level in zip(frames, (0, 100, 200), strict=True):
        np.testing.assert_allclose(item.mean((0, 1)), (level, 0, 0), atol=5)


def test_what_is_no_video(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for path in (text, tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(ImageError, match=path.name):
            next(video_frames(path))
    cut = write(tmp_path / "cut.mp4")
    cut.write_bytes(half(cut.read_bytes()))  # its index, at the end, is gone
    with pytest.raises(ImageError, match="damaged"):
        next(video_frames(cut))


def test_a_pattern_may_name_videos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.mp4", "a.MP4", "image.png"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images(f"{tmp_path}/*.mp4")] == ["b.mp4"]
    assert [path.name for path in find_images(f"{tmp_path}/*.[mM][pP]4")] == ["a.MP4", "b.mp4"]
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        assert [path.name for path in find_images(tmp_path)] == ["image.png"]
    assert "left out 2 .mp4 files; for videos give them by name or pattern" in caplog.text
