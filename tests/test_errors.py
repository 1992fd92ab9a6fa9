"""What every error of the package keeps: one line, and what it is about."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import condseg_sdk
from condseg_sdk import Predictor, errors, open_dataset
from condseg_sdk.errors import CondsegError, DeviceError, ImageError, OptionError, OutputError, errors_about
from condseg_sdk.images.load import find_images, load_image
from condseg_sdk.images.video import Video

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", ALL)
def test_pickled_errors_keep_message_and_attributes(kind: type[CondsegError]) -> None:
    error = pickle.loads(pickle.dumps(kind("no", path="a/b.png", repo_id="org/name", option="tile")))
    assert type(error) is kind
    assert (str(error), error.path, error.repo_id, error.option) == ("no", Path("a/b.png"), "org/name", "tile")


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_public_name(kind: type[CondsegError]) -> None:
    assert getattr(condseg_sdk, kind.__name__) is kind
    assert kind.__name__ in condseg_sdk.__all__


def test_messages_are_one_short_line_without_control_characters() -> None:
    assert str(CondsegError("a\nb\x1b[31m")) == "a b [31m"
    long = str(CondsegError("x" * 5000 + "; remedy"))
    assert len(long) < 2100
    assert long.endswith("; remedy")


def test_attributes_are_none_unless_given() -> None:
    error = OutputError("no")
    assert (error.path, error.repo_id, error.option) == (None, None, None)


def test_option_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="tile=0"):
        raise OptionError("tile=0 must be at least 1", option="tile")


@pytest.mark.parametrize("read", [load_image, lambda path: list(Video(path)), lambda path: find_images(path.parent)])
def test_errors_of_images_and_videos_know_the_path(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "damaged.png.txt"
    path.write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        read(path)
    assert caught.value.path in (path, tmp_path)


@pytest.mark.parametrize("name", ["", "nothing.csv", "damaged.json"])
def test_errors_of_datasets_know_the_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(CondsegError) as caught:
        open_dataset(tmp_path / name)
    assert caught.value.path == tmp_path / name


@pytest.mark.parametrize("name", ["damaged.onnx", "folder", "damaged.safetensors"])
def test_errors_of_checkpoints_know_the_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for damaged in ("damaged.onnx", "damaged.safetensors"):
        (tmp_path / damaged).write_text("x")
    with pytest.raises(CondsegError) as caught:
        Predictor.from_pretrained(tmp_path / name)
    assert caught.value.path == tmp_path / name


def test_errors_of_devices_and_preprocessing_know_the_option() -> None:
    with pytest.raises(DeviceError) as device:
        Predictor.from_pretrained("condseg-lite-polyp", device="cuda:99")
    with pytest.raises(OptionError) as revision:
        Predictor.from_pretrained("condseg-lite-polyp", revision="main")
    with pytest.raises(OptionError) as scale:
        condseg_sdk.Preprocessing(size=(64, 64), scale=0)
    assert [caught.value.option for caught in (device, revision, scale)] == ["device", "revision", "scale"]


def test_an_error_keeps_what_it_is_about_already() -> None:
    with pytest.raises(OutputError) as caught, errors_about("outer"), errors_about("inner"):
        raise OutputError("no")
    assert caught.value.path == Path("inner")
