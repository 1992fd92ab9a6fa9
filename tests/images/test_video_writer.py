"""Written videos: times, sizes, codecs, sound, and the seal."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from condseg_sdk.errors import OptionError, OutputError
from condseg_sdk.images import video_writer
from condseg_sdk.images.video import Video
from condseg_sdk.images.video_writer import FrameGrid, VideoWriter, add_sound, has_ffmpeg
from condseg_sdk.provenance import is_ours, seal_video

NEEDS_FFMPEG = pytest.mark.skipif(not has_ffmpeg(), reason="needs the program ffmpeg with libx264")


def gray(level: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    return np.full((*size, 3), level, np.uint8)


def write(path: Path, times: list[float], size: tuple[int, int] = (48, 64), rate: float = 10) -> VideoWriter:
    with VideoWriter(path, rate) as writer:
        for number, time in enumerate(times):
            writer.write(gray(40 * number % 240, size), time)
    return writer


@pytest.fixture
def without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(video_writer, "has_ffmpeg", lambda: False)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("by", ["ffmpeg", "OpenCV"])
def test_each_format_is_read_back_and_sealed(
    suffix: str, by: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if by == "OpenCV":
        request.getfixturevalue("without_ffmpeg")
    elif not has_ffmpeg():
        pytest.skip("no ffmpeg")
    path = tmp_path / f"film{suffix}"
    write(path, [0, 0.1, 0.2, 0.3])
    seal_video(path, '{"model": "tiny"}')
    assert is_ours(path)
    assert b'{"model": "tiny"}' in path.read_bytes()
    video = Video(path)
    frames = list(video)
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert (video.rate, video.frame_count, video.damage) == (10, 4, None)
    for frame in frames:
        assert frame.pixels.shape == (48, 64, 3)
        np.testing.assert_allclose(frame.pixels.mean(), 40 * frame.number, atol=4)
    data = path.read_bytes()
    for changed in (data[:-1], data + b" ", data[:100] + b"\0\1\2" + data[103:]):
        path.write_bytes(changed)
        assert not is_ours(path)


def test_a_gap_is_filled_so_that_times_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = write(path, [0, 0.1, 0.5, 0.6])
    assert writer.frames == 7
    levels = [round(float(frame.pixels.mean()) / 40) for frame in Video(path)]
    assert levels == [0, 1, 1, 1, 1, 2, 3]


def test_frames_closer_than_the_rate_allows_are_dropped_and_counted() -> None:
    grid = FrameGrid(10)
    placed = [grid.copies(time) for time in np.arange(0, 1, 0.05)]  # 20 per second
    assert sum(copies or 0 for copies in placed) == 11
    assert grid.dropped == 9


def test_jitter_loses_no_frame() -> None:
    grid = FrameGrid(30)
    jitter = np.random.default_rng(0).uniform(-0.012, 0.012, 300)
    assert [grid.copies(number / 30 + shift) for number, shift in enumerate(jitter)].count(None) == 0
    assert grid.dropped == 0


def test_a_jump_of_the_time_stamps_by_a_day_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    grid = FrameGrid(10)
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        assert [grid.copies(time) for time in (0, 0.1, 95443.7, 95443.8)] == [1, 1, 1, 1]
    assert "jump" in caplog.text


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 90000.0])
def test_an_unusual_frame_rate_becomes_25(rate: float, tmp_path: Path) -> None:
    assert VideoWriter(tmp_path / "film.mp4", rate).rate == 25


def test_ntsc_keeps_its_exact_rate(tmp_path: Path) -> None:
    assert str(VideoWriter(tmp_path / "film.mp4", 29.97002997).rate) == "30000/1001"


@pytest.mark.parametrize("by", ["ffmpeg", "OpenCV"])
def test_an_odd_side_is_padded_by_one_pixel(by: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if by == "OpenCV":
        request.getfixturevalue("without_ffmpeg")
    path = tmp_path / "film.mp4"
    write(path, [0, 0.1], size=(47, 65))
    assert {frame.pixels.shape for frame in Video(path)} == {(48, 66, 3)}


def test_a_frame_of_another_size_is_resized(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    with VideoWriter(path, 10) as writer:
        writer.write(gray(10), 0)
        writer.write(gray(20, (96, 128)), 0.1)
    assert {frame.pixels.shape for frame in Video(path)} == {(48, 64, 3)}


def test_a_suffix_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\.mp4"):
        VideoWriter(tmp_path / "film.webm", 10)


@NEEDS_FFMPEG
def test_an_error_of_ffmpeg_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written|ffmpeg stopped"):
        write(tmp_path / "missing" / "film.mp4", [0, 0.1], size=(480, 640))


@NEEDS_FFMPEG
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_the_sound_of_the_source_is_kept_and_cut_at_the_end_of_the_video(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / "source.mkv"
    made = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=3", "-f", "lavfi", "-i", "sine=d=3", "-c:a", "aac"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *made, str(source)], check=True)
    path = tmp_path / f"film{suffix}"
    write(path, [number / 10 for number in range(20)])
    add_sound(path, source, 2.0)
    shown = ["ffprobe", "-loglevel", "error", "-show_entries", "stream=codec_type", "-of", "csv=p=0", str(path)]
    assert subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split() == ["video", "audio"]
    length = ["ffprobe", "-loglevel", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(path)]
    assert float(subprocess.run(length, capture_output=True, text=True, check=True).stdout) == pytest.approx(2, abs=0.1)
    assert len(list(Video(path))) == 20


@NEEDS_FFMPEG
def test_a_source_without_sound_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, source = tmp_path / "film.mp4", tmp_path / "source.avi"
    write(path, [0, 0.1])
    write(source, [0, 0.1])
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        add_sound(path, source, 0.2)
    assert len(list(Video(path))) == 2
    assert not caplog.records


@pytest.mark.usefixtures("without_ffmpeg")
def test_without_ffmpeg_a_line_says_that_there_is_no_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "film.mp4"
    assert write(path, [0, 0.1]).codec == "MPEG-4 by OpenCV"
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        add_sound(path, path, 0.2)
    assert [record.message for record in caplog.records] == [
        "the program ffmpeg is not installed: the video has no sound, and not every browser plays it"
    ]
