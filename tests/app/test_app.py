"""The app behind its page: limits, errors in words, thresholds without the network, files, and where it listens."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from condseg_sdk import CondsegError, ImageError, OptionError
from condseg_sdk.app.models import Models
from condseg_sdk.app.page import WELCOME, _Handlers, example_path
from condseg_sdk.app.prediction import Prediction, describe, measurements, segment, show
from condseg_sdk.app.result_files import write_results
from condseg_sdk.app.server import is_local, listen
from condseg_sdk.app.settings import AppSettings
from condseg_sdk.app.uploads import check_upload
from condseg_sdk.cli import main
from condseg_sdk.images.load import load_image


@pytest.fixture(scope="module")
def settings(checkpoint: Path) -> AppSettings:
    return AppSettings(model=str(checkpoint), device="cpu", max_upload=1, max_pixels=20_000, max_frames=3)


@pytest.fixture(scope="module")
def models(settings: AppSettings) -> Models:
    return Models(settings)


@pytest.fixture
def handlers(settings: AppSettings, models: Models, tmp_path: Path) -> _Handlers:
    return _Handlers(settings, models, tmp_path, update=dict)


def predicted(path: Path, settings: AppSettings, models: Models) -> Prediction:
    upload = check_upload(path, settings)
    return segment(upload, models.open(models.first), settings, model=models.first, threshold=0.4)


def no_progress(*_: Any, **__: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"port": 65536}, "port"),
        ({"max_upload": 0}, "max_upload"),
        ({"max_frames": 1.5}, "max_frames"),
        ({"user": "jane"}, "user"),
        ({"password": "secret"}, "user"),
        ({"user": "", "password": "secret"}, "user"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError) as caught:
        AppSettings(**values)
    assert caught.value.option == named


def test_only_this_machine_can_open_the_page_by_default_and_the_password_is_never_shown() -> None:
    assert AppSettings().host == "127.0.0.1"
    assert "secret" not in repr(AppSettings(user="jane", password="secret"))


def test_a_file_of_too_many_bytes_is_refused_before_it_is_opened(tmp_path: Path, settings: AppSettings) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(bytes(1_000_001))
    with pytest.raises(ImageError, match=r"has 1.0 MB, more than 1 MB; .* --max-upload 2$"):
        check_upload(path, settings)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, settings: AppSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (201, 100)).save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"20,100 pixels, more than 20,000; .* --max-pixels 20100$"):
        check_upload(path, settings)


def test_following_the_remedy_of_a_limit_helps(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (201, 100)).save(path)
    assert check_upload(path, AppSettings(max_pixels=20_100)).kind == "image"


def test_a_video_or_a_dicom_file_of_too_many_frames_is_refused(example_files: Path, settings: AppSettings) -> None:
    for name in ("colonoscopy.mp4", "cine.dcm"):
        assert check_upload(example_files / name, settings).num_frames == 3
        with pytest.raises(ImageError, match=r"has 3 frames, more than 2; .*--max-frames 3"):
            check_upload(example_files / name, AppSettings(max_frames=2))
    with pytest.raises(ImageError, match="10,800 pixels, more than 100"):
        check_upload(example_files / "colonoscopy.mp4", AppSettings(max_pixels=100))


def test_a_file_that_is_no_image_gives_a_message_with_its_name_and_nothing_of_the_last_image(
    tmp_path: Path, handlers: _Handlers, models: Models
) -> None:
    path = tmp_path / "<b>notes.png"
    path.write_bytes(b"not an image")
    prediction, status, *shown = handlers.segment(str(path), models.first, 0.4, no_progress)
    assert prediction is None
    assert 'role="alert"' in status
    assert "&lt;b&gt;notes.png is not an image that can be read; save it as PNG" in status
    assert str(tmp_path) not in status
    assert shown[:5] == [None, None, None, None, ""]


def test_no_memory_gives_a_message(
    example_files: Path, handlers: _Handlers, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("condseg_sdk.app.page.check_upload", full)
    assert "memory" in handlers.segment(str(example_files / "frame.jpg"), models.first, 0.4, no_progress)[1]


def test_another_threshold_changes_the_mask_without_running_the_network(
    example_files: Path, settings: AppSettings, models: Models, handlers: _Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = predicted(example_files / "frame.jpg", settings, models)
    expected = models.open(models.first)(example_files / "frame.jpg", threshold=0.7)
    monkeypatch.setattr(type(models.open(models.first)._runtime), "run", lambda *_, **__: pytest.fail("it ran"))
    values = show(prediction, 0, 0.7).values
    assert values["area"] == expected.area < show(prediction, 0, 0.1).values["area"]
    assert np.array_equal(prediction.at(0, 0.7).mask, expected.mask)
    overlay, mask, *_ = handlers.look(prediction, 0, 0.7)
    assert overlay.size == mask.size == (120, 90)
    assert np.array_equal(np.asarray(mask) > 0, expected.mask)


def test_what_is_shown_is_small_and_what_is_measured_is_not(tmp_path: Path, checkpoint: Path, models: Models) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 2048, 3), np.uint8)).save(path)
    prediction = predicted(path, AppSettings(model=str(checkpoint)), models)
    view = show(prediction, 0, 0.5)
    assert view.overlay.size == view.mask.size == view.probability.size == view.uncertainty.size == (1024, 30)
    assert view.values["size"] == [60, 2048]
    assert view.values["name"] == "large.png"


def test_measurements_are_a_table_with_millimeters_where_they_are_known(
    example_files: Path, settings: AppSettings, models: Models
) -> None:
    scan = predicted(example_files / "scan.dcm", settings, models).at(0, 0.4).to_dict()
    assert "area (mm²)" in measurements(scan)
    assert f"{scan['area'] * 0.25:,.1f} mm²" in measurements(scan)
    frame = predicted(example_files / "frame.jpg", settings, models)
    text = measurements(frame.at(0, 0.4).to_dict())
    assert "mm" not in text
    assert f"{frame.at(0, 0.4).area:,} pixels" in text
    empty = measurements(frame.at(0, 0.999).to_dict())
    assert re.fullmatch(r"\*\*No region\*\* reaches the threshold of 1.00. Score 0\.\d\d\.", empty)
    assert describe(frame).startswith("frame.jpg: 120 x 90 pixels, segmented in ")


def test_the_frames_of_a_video_are_there_one_by_one(
    example_files: Path, settings: AppSettings, models: Models, handlers: _Handlers
) -> None:
    done: list[Any] = []
    path = str(example_files / "colonoscopy.mp4")
    prediction, status, *rest = handlers.segment(path, models.first, 0.4, lambda part, **_: done.append(part))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert "3 frames of 120 x 90 pixels" in status
    assert rest[5] == {"visible": True, "maximum": 2, "value": 0}
    assert "video" in rest[6]["choices"]
    expected = [seg.area for seg in models.open(models.first).stream(path, threshold=0.4)]
    assert [seg.area for seg in prediction.all_at(0.4)] == expected
    assert handlers.look(prediction, 99, 0.4)[0].size == (120, 90)  # the slider of a longer video


def test_the_files_of_an_image_are_those_that_the_prediction_encodes(
    example_files: Path, settings: AppSettings, models: Models, tmp_path: Path
) -> None:
    prediction = predicted(example_files / "frame.jpg", settings, models)
    paths = write_results(prediction, 0.45, ["coco", "mask", "overlay", "json"], tmp_path)
    assert [path.name for path in paths] == ["frame_mask.png", "frame_overlay.png", "frame.json", "coco.json"]
    assert np.array_equal(load_image(paths[0])[..., 0] > 0, prediction.at(0, 0.45).mask)
    assert json.loads(paths[2].read_text())["threshold"] == 0.45
    coco = json.loads(paths[3].read_text())
    assert coco["images"][0]["file_name"] == "frame.jpg"
    assert sum(annotation["area"] for annotation in coco["annotations"]) == prediction.at(0, 0.45).area > 0
    assert not any(str(example_files) in path.read_text() for path in paths[2:])
    for kinds, words in (([], "no kind of file"), (["video"], "an image has no video"), (["bmp"], "not one of")):
        with pytest.raises(OptionError, match=words):
            write_results(prediction, 0.6, kinds, tmp_path)


def test_the_files_of_a_video_are_an_archive_and_a_video(
    example_files: Path, settings: AppSettings, models: Models, tmp_path: Path
) -> None:
    prediction = predicted(example_files / "colonoscopy.mp4", settings, models)
    archive, table, video = write_results(prediction, 0.4, ["mask", "json", "csv", "video"], tmp_path)
    names = [f"colonoscopy_{i:06d}{ending}" for i in range(3) for ending in ("_mask.png", ".json")]
    assert zipfile.ZipFile(archive).namelist() == names
    assert table.name == "measurements.csv"
    info = check_upload(video, settings)
    assert (info.kind, info.num_frames, info.rate) == ("video", 3, 5.0)


def test_choosing_a_model_takes_its_threshold(example_files: Path, handlers: _Handlers, models: Models) -> None:
    threshold, prediction, *_ = handlers.choose_model(str(example_files / "frame.jpg"), models.first, no_progress)
    assert threshold == prediction.frames[0].seg.threshold == 0.4
    assert models.names[0] == models.first
    assert "condseg-lite-polyp" in models.names


def test_events_without_an_upload_show_the_welcome(handlers: _Handlers, models: Models) -> None:
    assert handlers.segment(None, models.first, 0.4, no_progress)[:2] == (None, WELCOME)
    assert handlers.look(None, 0, 0.4)[:4] == (None,) * 4
    assert handlers.write(None, 0.4, ["mask"])[1] == WELCOME


def test_the_example_is_an_image() -> None:
    assert load_image(example_path()).shape == (480, 600, 3)


def test_the_server_listens_on_this_machine_alone_unless_it_is_asked() -> None:
    with listen(AppSettings().host, 0) as listener:
        assert is_local(listener)
        port = listener.getsockname()[1]
        with pytest.raises(OptionError, match=f"--port {port} is in use; .* --port 0"):
            listen("127.0.0.1", port)
    with listen("0.0.0.0", 0) as listener:
        assert not is_local(listener)
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(OptionError, match="not an address of this machine"):
            listen(host, 0)


def test_a_login_without_a_password_is_refused_and_no_option_takes_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CONDSEG_APP_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin", None)
    assert main(["app", "--user", "jane"]) == 2
    assert "set CONDSEG_APP_PASSWORD" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["app", "--help"])
    assert "--password" not in capsys.readouterr().out


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["app"]) == 2
    assert "pip install 'condseg_sdk[app]'" in capsys.readouterr().err


def test_a_model_that_is_missing_is_one_line(checkpoint: Path) -> None:
    with pytest.raises(CondsegError, match="missing"):
        Models(AppSettings(model=str(checkpoint.parent / "missing"))).open(
            Models(AppSettings(model=str(checkpoint.parent / "missing"))).first
        )
