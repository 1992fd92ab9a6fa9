"""Frames of videos keep their true numbers, and missing frames of damaged videos are reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from condseg_sdk.errors import ImageError
from condseg_sdk.images.formats import VIDEO_SUFFIXES
from condseg_sdk.images.load import find_images
from condseg_sdk.images.video import Video, video_frames

FRAMES = 40
CODECS = {
    ".avi": "MJPG",
    ".m2ts": "mpg2",
    ".m4v": "mp4v",
    ".mkv": "mp4v",
    ".mov": "mp4v",
    ".mp4": "mp4v",
    ".mpeg": "mpg2",
    ".mpg": "mpg2",
    ".mts": "mpg2",
    ".ts": "mpg2",
    ".webm": "VP80",
    ".wmv": "WMV2",
}


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


def noise_behind(data: bytes) -> bytes:
    return data + np.random.default_rng(0).bytes(999)


def zeros_behind(data: bytes) -> bytes:
    return data + bytes(999)


def test_every_suffix_has_a_codec() -> None:
    assert CODECS.keys() == VIDEO_SUFFIXES


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("count", [1, 2, 3, FRAMES])
def test_a_complete_video_reports_no_damage(
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
@pytest.mark.parametrize("suffix", CODECS)
def test_a_damaged_video_reports_which_frames_are_missing(
    suffix: str, damaging: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / f"film{suffix}")
    path.write_bytes(damaging(path.read_bytes()))
    video = Video(path)
    if damaging is half and suffix in (".m4v", ".mov", ".mp4"):  # their index, at the end, is gone
        with pytest.raises(ImageError, match="damaged"):
            list(video)
        return
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        frames = [(item.number, number_of(item.pixels)) for item in video]
    assert 0 < len(frames) < FRAMES
    # Frames beside the damage may be decoded in part, or on the base of a frame that is missing.
    assert sum(abs(said - seen) > 1 for said, seen in frames) <= 2
    if damaging is hole:
        assert frames[-1] == (FRAMES - 1, FRAMES - 1)
    assert video.damage is not None
    assert f"{path} is damaged: " in caplog.records[-1].message
    assert "missing" in video.damage


@pytest.mark.parametrize("change", [noise_behind, zeros_behind])
@pytest.mark.parametrize("suffix", CODECS)
def test_bytes_after_a_complete_video_are_not_damage(
    suffix: str, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = write(tmp_path / f"film{suffix}")
    path.write_bytes(change(path.read_bytes()))
    video = Video(path)
    assert [item.number for item in video] == list(range(FRAMES))
    assert video.damage is None


@pytest.mark.parametrize("cut", [200, 16 * FRAMES + 8])
def test_an_avi_file_that_lacks_only_its_index_is_complete(cut: int, tmp_path: Path) -> None:
    path = write(tmp_path / "film.avi")
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    video = Video(path)
    assert [item.number for item in video] == list(range(FRAMES))
    assert video.damage is None
    path.write_bytes(data[: data.index(b"idx1") - 4000])
    assert 0 < len(list(video)) < FRAMES
    assert video.damage is not None


@pytest.mark.parametrize("size", [50, 300, 1500, 3000])
def test_small_holes_in_a_wmv_file_keep_frame_numbers(size: int, tmp_path: Path) -> None:
    path = write(tmp_path / "film.wmv")
    data = path.read_bytes()
    for begin in range(10_000, len(data) - 8000, 9001):
        path.write_bytes(data[:begin] + bytes(size) + data[begin + size :])
        video = Video(path)
        numbers = [item.number for item in video]
        assert numbers[-1] == FRAMES - 1
        assert len(numbers) == FRAMES or video.damage is not None


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


def test_frames_after_a_hole_in_an_mp4_file_keep_their_numbers(tmp_path: Path) -> None:
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


def test_frames_are_rgb_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in (0, 100, 200):
        writer.write(np.full((48, 64, 3), (0, 0, level), np.uint8))  # OpenCV's order: red is last
    writer.release()
    frames = list(video_frames(path))
    assert [item.shape for item in frames] == [(48, 64, 3)] * 3
    for item, level in zip(frames, (0, 100, 200), strict=True):
        np.testing.assert_allclose(item.mean((0, 1)), (level, 0, 0), atol=5)


def test_files_that_are_not_videos_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for path in (text, tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(ImageError, match=path.name):
            next(video_frames(path))
    cut = write(tmp_path / "cut.mp4")
    cut.write_bytes(half(cut.read_bytes()))  # its index, at the end, is gone
    with pytest.raises(ImageError, match="damaged"):
        next(video_frames(cut))


def test_a_glob_pattern_can_name_videos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.mp4", "a.MP4", "image.png"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images(f"{tmp_path}/*.mp4")] == ["b.mp4"]
    assert [path.name for path in find_images(f"{tmp_path}/*.[mM][pP]4")] == ["a.MP4", "b.mp4"]
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        assert [path.name for path in find_images(tmp_path)] == ["image.png"]
    assert "left out 2 .mp4 files; pass videos by name or pattern" in caplog.text
