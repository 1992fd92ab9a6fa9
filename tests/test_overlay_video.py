"""Overlay videos, from Python and from the command line: files, times, live sources, interrupts and memory."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from condseg_sdk import OptionError, OutputError, Predictor
from condseg_sdk.cli import main
from condseg_sdk.errors import ImageError
from condseg_sdk.images import live
from condseg_sdk.images.live import LiveVideo, Realtime, is_live, open_video
from condseg_sdk.images.video import Video
from condseg_sdk.overlay_video import save_overlay_video
from condseg_sdk.provenance import is_ours

FRAMES, RATE = 6, 10


def picture(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)


def film(path: Path, count: int = FRAMES) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (64, 48))
    for number in range(count):
        writer.write(picture(number))
    writer.release()
    return path


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "film.avi")


class FakeCapture:
    """A camera that gives some frames and is then unplugged."""

    frames = FRAMES
    opened: Any = None

    def __init__(self, *opened: Any) -> None:
        FakeCapture.opened = opened
        self.number = -1

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.frames >= 0

    def get(self, what: int) -> float:
        return 10.0 if what == cv2.CAP_PROP_FPS else -1.0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.number += 1
        return (True, picture(self.number)) if self.number < self.frames else (False, None)

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    monkeypatch.setattr(live.cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "frames", FRAMES)
    return FakeCapture


def test_the_overlay_has_the_size_the_rate_and_the_frames_of_the_source(
    predictor: Predictor, source: Path, tmp_path: Path
) -> None:
    result = save_overlay_video(predictor, source, tmp_path / "out.mp4")
    assert (result.segmented, result.frames, result.rate, result.late, result.damage) == (FRAMES, FRAMES, RATE, 0, None)
    written, original = list(Video(result.path)), list(Video(source))
    assert [frame.time for frame in written] == pytest.approx([frame.time for frame in original], abs=0.01)
    for seg, frame in zip(predictor.stream(source), written, strict=True):
        drawn = np.asarray(seg.overlay()).astype(float)
        assert np.abs(drawn.mean((0, 1)) - frame.pixels.mean((0, 1))).max() < 12
    assert is_ours(result.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]


def test_a_video_is_replaced_only_if_it_is_ours(predictor: Predictor, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.avi"
    save_overlay_video(predictor, source, out)
    save_overlay_video(predictor, source, out)
    out.write_bytes(b"of somebody else")
    with pytest.raises(OutputError, match="was not written by condseg"):
        save_overlay_video(predictor, source, out)
    assert save_overlay_video(predictor, source, out, overwrite=True).segmented == FRAMES


def test_what_cannot_be_written_is_refused_before_the_work(predictor: Predictor, source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"out\.webm"):
        save_overlay_video(predictor, source, tmp_path / "out.webm")
    with pytest.raises(OutputError, match="is the video that is read"):
        save_overlay_video(predictor, source, source, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        save_overlay_video(predictor, source, tmp_path / "missing" / "out.mp4")
    with pytest.raises(ImageError, match="missing"):
        save_overlay_video(predictor, tmp_path / "missing.mp4", tmp_path / "out.mp4")
    assert not any(tmp_path.iterdir())


def test_an_error_in_the_middle_leaves_nothing(predictor: Predictor, source: Path, tmp_path: Path) -> None:
    class Failing(Video):
        def __iter__(self) -> Iterator[Any]:
            for frame in super().__iter__():
                if frame.number == 3:
                    raise ImageError("the disk was pulled out")
                yield frame

    with pytest.raises(ImageError, match="pulled out"):
        save_overlay_video(predictor, Failing(source), tmp_path / "out.mp4", batch_size=1)
    assert not any(tmp_path.iterdir())


def test_smoothing_changes_masks_of_a_stream_and_is_refused_for_images(predictor: Predictor, source: Path) -> None:
    raw, smooth = (list(predictor.stream(source, smooth=flag)) for flag in (False, True))
    assert [seg.frame for seg in smooth] == [*range(FRAMES)]
    np.testing.assert_array_equal(raw[0].logits, smooth[0].logits)
    with pytest.raises(OptionError, match="smooth"):
        predictor.stream("frame.jpg", smooth=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("camera:0", True), ("3", True), ("rtsp://10.0.0.5/a", True), ("https://host/a.mp4", True)),
        *(("film.mp4", False), ("camera:x", False), ("-1", False), ("rtsp:/a", False), ("file:///a.mp4", False)),
    ],
)
def test_live_sources_are_recognized(text: str, expected: bool) -> None:
    assert is_live(text) is expected


def test_a_file_named_like_a_camera_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").touch()
    assert isinstance(open_video("0"), Video)
    assert isinstance(open_video("camera:0"), LiveVideo)


def test_a_camera_is_read_until_it_ends(camera: type[FakeCapture]) -> None:
    frames = list(LiveVideo("camera:1"))
    assert camera.opened == (1,)
    assert [frame.number for frame in frames] == [*range(FRAMES)]
    times = [frame.time for frame in frames]
    assert times[0] == 0
    assert times == sorted(times)
    np.testing.assert_array_equal(frames[2].pixels, picture(2)[..., ::-1])


@pytest.mark.parametrize(("count", "message"), [(-1, "cannot be opened"), (0, "gives no frame")])
def test_a_live_source_that_fails_is_named_without_its_password(
    camera: type[FakeCapture], count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCapture, "frames", count)
    with pytest.raises(ImageError, match=message) as error:
        list(LiveVideo("rtsp://nurse:secret@10.0.0.5/scope?key=hidden"))
    assert "rtsp://10.0.0.5/scope" in str(error.value)
    assert "secret" not in str(error.value)
    assert "hidden" not in str(error.value)


def test_realtime_plays_a_file_at_its_rate_and_drops_what_comes_late(source: Path) -> None:
    frames = Realtime(Video(source))
    seen = []
    busy = threading.Event()
    for frame in frames:
        seen.append(frame.number)
        busy.wait(0.25)  # two and a half frames
    assert seen[0] == 0
    assert seen[-1] == FRAMES - 1
    assert frames.dropped == FRAMES - len(seen) > 0
    assert seen == sorted({*seen})


def test_realtime_raises_the_error_of_its_source(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing"):
        list(Realtime(Video(tmp_path / "missing.mp4")))


def command(checkpoint: Path, *arguments: str | Path) -> int:
    return main(["predict", "--model", str(checkpoint), "--device", "cpu", *map(str, arguments)])


def test_the_command_writes_an_overlay_of_a_file_and_of_a_camera(
    checkpoint: Path,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command(checkpoint, source, "--out", tmp_path / "a.avi", "--smooth", "--log", tmp_path / "log") == 0
    assert f"{FRAMES} frames segmented on cpu" in capsys.readouterr().out
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert command(checkpoint, source, "--out", tmp_path / "b.avi", "--realtime") == 0
    assert command(checkpoint, source, "--out", tmp_path / "c.avi", "--save", "csv") == 2
    assert "--save is for files of single images" in capsys.readouterr().err
    assert command(checkpoint, "camera:0", "--out", tmp_path / "folder") == 2
    assert command(checkpoint, tmp_path / "a.png", "--out", tmp_path / "c.avi") == 2
    assert command(checkpoint, source, source, "--out", tmp_path / "c.avi") == 2
    assert command(checkpoint, source, "--realtime", "--out", tmp_path / "folder") == 2
    monkeypatch.setattr(live.cv2, "VideoCapture", FakeCapture)
    assert command(checkpoint, "0", "--out", tmp_path / "live.avi") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.avi", "b.avi", "live.avi", "log"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_a_complete_video_of_the_frames_so_far(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from condseg_sdk.cli import interrupts

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(interrupts, "_received", None)
    monkeypatch.setattr(interrupts, "_stop", interrupts.Stop())
    original = FakeCapture.read

    def read(self: FakeCapture) -> tuple[bool, NDArray[np.uint8] | None]:
        if self.number == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self)

    monkeypatch.setattr(FakeCapture, "read", read)
    monkeypatch.setattr(FakeCapture, "frames", 10_000)
    monkeypatch.setattr(live.cv2, "VideoCapture", FakeCapture)
    try:
        interrupts.install()
        assert command(checkpoint, "camera:0", "--out", tmp_path / "live.avi", "--batch-size", "1") == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    monkeypatch.undo()
    assert "ends there" in capsys.readouterr().err
    video = Video(tmp_path / "live.avi")
    assert len(list(video)) > 0
    assert video.damage is None
    assert [path.name for path in tmp_path.iterdir()] == ["live.avi"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of the process from /proc")
def test_memory_stays_flat_over_3000_frames(predictor: Predictor, tmp_path: Path) -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    class Measured(Video):
        megabytes: dict[int, float]

        def __iter__(self) -> Iterator[Any]:
            self.megabytes = {}
            for frame in super().__iter__():
                if frame.number % 500 == 499:
                    self.megabytes[frame.number] = resident()
                yield frame

    video = Measured(film(tmp_path / "film.avi", 3000))
    result = save_overlay_video(predictor, video, tmp_path / "out.mp4", smooth=True)
    assert result.segmented == result.frames == 3000
    print({number: round(megabytes, 1) for number, megabytes in video.megabytes.items()})
    assert video.megabytes[2999] - video.megabytes[499] < 10
