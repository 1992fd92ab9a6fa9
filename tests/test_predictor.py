"""Predictor: what goes in, what comes out, and that batches, threads and pickling change nothing."""

from __future__ import annotations

import logging
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk import (
    ConDSeg,
    CondsegError,
    DeviceError,
    ImageError,
    OptionError,
    Predictor,
    Segmentation,
    TorchOptions,
)
from condseg_sdk.images.video import Video

TOLERANCE = 1e-4  # of probabilities, between ways to the same prediction


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images of nine sizes."""
    path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(9):
        coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((60 + 17 * number, 90 - 5 * number)).save(path / f"{number}.png")
    return path


def difference(a: Segmentation, b: Segmentation) -> float:
    return float(np.abs(a.probability - b.probability).max())


def test_every_kind_of_source_gives_the_same_prediction(predictor: Predictor, folder: Path) -> None:
    path = folder / "3.png"
    pixels = np.asarray(Image.open(path))
    expected = predictor(path)
    sources = {
        "str": str(path),
        "bytes": path.read_bytes(),
        "PIL": Image.open(path),
        "array": pixels,
        "uint16": pixels.astype(np.uint16) * 257,
        "float": pixels / 255,
        "tensor": torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    }
    assert expected.mask.shape == pixels.shape[:2]
    for kind, source in sources.items():
        assert difference(predictor(source), expected) < 1e-6, kind
    bgr = cv2.imread(str(path))
    assert difference(predictor(bgr, color_order="bgr"), expected) < 1e-6
    assert difference(predictor(bgr), expected) > 1e-6


def test_the_logits_are_those_of_the_network(predictor: Predictor, checkpoint: Path, folder: Path) -> None:
    from condseg_sdk.weights.checkpoint import load_checkpoint

    network, config = load_checkpoint(checkpoint)
    pixels = np.asarray(Image.open(folder / "5.png"))
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(config.preprocessing(pixels))[None]).mask[0, 0]
    np.testing.assert_allclose(predictor(folder / "5.png").logits, logits.numpy(), rtol=1e-4, atol=TOLERANCE)


def test_one_image_gives_one_prediction_and_many_give_a_list_in_order(predictor: Predictor, folder: Path) -> None:
    assert isinstance(predictor(folder / "0.png"), Segmentation)
    names = [str(folder / f"{number}.png") for number in range(9)]
    for sources in (folder, str(folder / "*.png"), names, tuple(names)):
        assert [seg.name for seg in predictor.predict(sources)] == names
    assert [seg.name for seg in predictor.predict(names[::-1])] == names[::-1]
    for one in (names[4], [names[4]]):
        assert [seg.name for seg in predictor.predict(one)] == [names[4]]
    assert [seg.name for seg in predictor.stream(iter(names))] == names
    assert [seg.name for seg in predictor.stream(dict.fromkeys(names).keys())] == names  # any iterable
    array = np.zeros((40, 50, 3), np.uint8)
    for one in (array, torch.zeros(3, 40, 50), Image.fromarray(array), (folder / "0.png").read_bytes()):
        assert len(list(predictor.stream(one))) == 1
    with (folder / "0.png").open("rb") as file:
        (seg,) = predictor.stream(file)
        assert predictor(file).name == seg.name == names[0]  # read from where it was, both times
    assert seg.overlay().size == seg.size[::-1]  # although the file is closed
    assert pickle.loads(pickle.dumps(seg)).area == seg.area
    with pytest.raises(ImageError, match="cannot be read"):
        predictor(file)


def test_a_call_refuses_many_images_and_names_the_method_for_them(predictor: Predictor, folder: Path) -> None:
    for many in (folder, str(folder), str(folder / "*.png"), [folder / "0.png"], ()):
        with pytest.raises(OptionError, match=r"is not one image: use predictor\.predict\(\.\.\.\)"):
            predictor(many)  # type: ignore[arg-type]
    for many in (iter([folder / "0.png"]), Video("clip.mp4")):
        for call in (predictor, predictor.predict):
            with pytest.raises(OptionError, match=r"use predictor\.stream\(\.\.\.\)"):
                call(many)
    with pytest.raises(ImageError, match=r"clip\.mp4 does not exist"):
        predictor("clip.mp4")


def test_the_model_is_the_network_that_was_loaded_and_is_exported_and_pushed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    opened = Predictor.from_pretrained(folder, device="cpu")
    assert opened.model_id == str(folder)
    (folder / "model.safetensors").write_bytes(b"changed since")
    expected = ConDSeg.from_pretrained(checkpoint).state_dict()
    found = opened.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert not opened.model.training
    used: list[ConDSeg] = []
    monkeypatch.setattr("condseg_sdk.export.onnx.export_onnx", lambda network, *_, **__: used.append(network))
    monkeypatch.setattr("condseg_sdk.publish.push_checkpoint", lambda network, *_, **__: used.append(network))
    opened.export_onnx(tmp_path / "model.onnx")
    opened.push_to_hub("org/name")
    assert [network is opened.model for network in used] == [True, True]


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"tile": 40}, {"branch_uncertainty": True}])
def test_batches_threads_and_pickling_do_not_change_predictions(
    predictor: Predictor, folder: Path, options: dict[str, object]
) -> None:
    paths = [folder / f"{number}.png" for number in range(8)]
    alone = [predictor(path, **options) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(lambda path: predictor(path, **options), paths))
    copy = pickle.loads(pickle.dumps(predictor))
    for other in (
        predictor.predict(paths, batch_size=8, **options),
        threads,
        [copy(path, **options) for path in paths],
    ):
        assert max(map(difference, alone, other)) < TOLERANCE
    assert copy.threshold == predictor.threshold


def test_test_time_augmentation_is_the_mean_of_the_mirrored_logits(predictor: Predictor, folder: Path) -> None:
    pixels = np.asarray(Image.open(folder / "2.png"))
    mirrored: list[NDArray[np.float32]] = []
    for axes in ((), (0,), (1,), (0, 1)):
        seg = predictor(np.ascontiguousarray(np.flip(pixels, axes)))
        mirrored.append(np.flip(seg.logits, axes))
    averaged = predictor(pixels, tta=True)
    np.testing.assert_allclose(averaged.logits, np.mean(mirrored, 0), atol=2e-2)  # resizing is not quite symmetric
    assert np.abs(averaged.logits - mirrored[0]).max() > 0


def test_tiles_give_the_images_size_and_one_tile_equals_none(predictor: Predictor, folder: Path) -> None:
    path = folder / "8.png"
    height, width = np.asarray(Image.open(path)).shape[:2]
    tiled = predictor(path, tile=40, branch_uncertainty=True)
    assert tiled.logits.shape == (height, width)
    assert tiled.branch_uncertainty.shape == (height, width)
    whole = predictor(np.asarray(Image.open(path))[:50, :50], tile=64)
    plain = predictor(np.asarray(Image.open(path))[:50, :50])
    assert difference(whole, plain) < TOLERANCE


def test_the_uncertainty_branch_is_computed_only_on_request(predictor: Predictor, folder: Path) -> None:
    seg = predictor(folder / "0.png", branch_uncertainty=True)
    assert seg.branch_uncertainty.shape == seg.mask.shape
    with pytest.raises(OptionError, match="branch_uncertainty=True"):
        _ = predictor(folder / "0.png").branch_uncertainty


def test_the_default_threshold_is_that_of_the_checkpoint(predictor: Predictor, folder: Path) -> None:
    seg = predictor(folder / "1.png")
    assert seg.threshold == predictor.threshold
    other = predictor(folder / "1.png", threshold=0.9)
    clear = np.abs(seg.probability - 0.9) > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(other.mask[clear], (seg.probability >= 0.9)[clear])


def test_a_bad_image_is_raised_skipped_or_given_to_a_function(
    predictor: Predictor, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("not an image")
    sources = [folder / "0.png", bad, folder / "1.png"]
    with pytest.raises(ImageError, match=r"bad\.png"):
        predictor.predict(sources)
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        assert [Path(seg.name).name for seg in predictor.predict(sources, on_error="skip")] == ["0.png", "1.png"]
    assert "bad.png" in caplog.text
    failures: list[tuple[object, CondsegError]] = []
    assert len(predictor.predict(sources, on_error=lambda *failure: failures.append(failure), batch_size=1)) == 2
    assert [source for source, _ in failures] == [bad]
    with pytest.raises(ImageError, match=r"bad\.png"):
        predictor(bad)


def test_a_video_is_streamed_frame_by_frame(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in range(5):
        writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
    writer.release()
    segs = list(predictor.stream(path, batch_size=2))
    assert [seg.name for seg in segs] == [f"{path} frame {number}" for number in range(5)]
    assert all(seg.mask.shape == (48, 64) for seg in segs)
    assert segs[3].overlay().size == (64, 48)
    with pytest.raises(OptionError, match="frames of a video are RGB already"):
        predictor.stream(path, color_order="bgr")


def test_a_video_that_cannot_be_read_is_skipped_like_an_image(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    failures: list[tuple[object, CondsegError]] = []
    assert list(predictor.stream(path, on_error=lambda *failure: failures.append(failure))) == []
    assert [source for source, _ in failures] == [path]
    assert "broken.mp4" in str(failures[0][1])
    with pytest.raises(ImageError, match=r"broken\.mp4"):
        list(predictor.stream(path))


def test_streaming_reads_only_a_little_ahead(predictor: Predictor) -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((20, 30, 3), np.uint8)

    stream = predictor.stream(endless(), batch_size=2)
    for _ in range(6):
        next(stream)
    assert taken < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold=0.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"tile": 5}, "tile=5"),
        ({"color_order": "gbr"}, "color_order='gbr'"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
    ],
)
def test_options_are_checked_before_any_image_is_read(
    predictor: Predictor, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        predictor.predict(["does-not-exist.png"], **options)
    with pytest.raises(OptionError, match=message):
        predictor.stream(["does-not-exist.png"], **options)


def test_devices_that_cannot_be_used_are_refused(checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match="device='tpu'"):
        Predictor.from_pretrained(checkpoint, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="device='cuda'"):
            Predictor.from_pretrained(checkpoint, device="cuda")
        auto = Predictor.from_pretrained(checkpoint)
        assert (auto.device, auto.providers) == ("cpu", ("torch",)) or torch.backends.mps.is_available()
    with pytest.raises(OptionError, match="needs a GPU"):
        Predictor.from_pretrained(checkpoint, device="cpu", runtime=TorchOptions(precision="float16"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float16", 2e-2), ("bfloat16", 1e-1)])
def test_gpu_and_cpu_give_the_same_predictions(
    checkpoint: Path, folder: Path, precision: str, tolerance: float
) -> None:
    options = TorchOptions(precision=precision)  # type: ignore[arg-type]
    gpu = Predictor.from_pretrained(checkpoint, device="cuda", runtime=options)
    assert gpu.device.startswith("cuda")
    cpu = Predictor.from_pretrained(checkpoint, device="cpu")
    assert max(map(difference, gpu.predict(folder), cpu.predict(folder))) < tolerance


def deep(folder: Path, bits: int) -> Path:
    """Images of so many bits in 16: a dark one, and one whose brightest pixel is white."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name, top in (("dark", 60), ("bright", 255)):
        coarse = Image.fromarray(rng.integers(0, top, (6, 8, 3), np.uint8)).resize((70, 50))
        pixels = np.asarray(coarse).copy()
        pixels[0, 0] = top
        values = np.rint(pixels / 255 * (2**bits - 1)).astype(np.uint16)
        cv2.imwrite(str(folder / f"{name}.png"), values[..., ::-1])
        Image.fromarray(pixels).save(folder / f"{name}.bmp")
    return folder


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_set_of_16_bit_images_is_read_with_the_bits_of_its_brightest(
    predictor: Predictor, tmp_path: Path, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = deep(tmp_path / "deep", bits)
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        together = predictor.predict(f"{folder}/*.png")
    assert [seg.bits for seg in together] == [bits, bits]
    assert (f"{bits} bits (white is {2**bits - 1})" in caplog.text) == (bits < 16)
    for seg in together:
        path = folder / Path(seg.name).name
        eight = predictor(path.with_suffix(".bmp"))
        assert difference(seg, eight) < 0.05
        assert difference(predictor(path, bits=bits), seg) < TOLERANCE
        drawn = np.asarray(seg.overlay(alpha=0.0)).astype(int) - np.asarray(eight.overlay(alpha=0.0))
        assert np.median(np.abs(drawn)) <= 1  # the overlay is as bright as the image
    assert [seg.bits for seg in predictor.stream(iter([folder / "bright.png"]), bits=16)] == [16]
    for wrong in (7, "12", True):
        with pytest.raises(OptionError, match="bits="):
            predictor.predict(folder, bits=wrong)  # type: ignore[arg-type]


def test_frames_of_a_video_have_numbers_and_a_pattern_means_several_videos(
    predictor: Predictor, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for level in range(3):
            writer.write(np.full((48, 64, 3), 50 * level, np.uint8))
        writer.release()
    segs = list(predictor.stream(str(tmp_path / "*.avi")))
    assert [seg.frame for seg in segs] == [0, 1, 2, 0, 1, 2]
    assert segs[3].name == f"{tmp_path / 'b.avi'} frame 0"
    assert predictor(np.zeros((8, 8), np.uint8)).frame is None


@pytest.fixture(scope="module")
def looking(checkpoint: Path, predictor: Predictor) -> Predictor:
    """A predictor that looks for the endoscopic view."""
    wanted = replace(predictor.preprocessing, field_of_view="endoscopy")
    return Predictor.from_pretrained(checkpoint, device="cpu", preprocessing=wanted)


class TestFieldOfView:
    """A checkpoint that looks for the endoscopic view, on frames with a margin and a guide box."""

    BOX = (100, 20, 220, 140)

    @staticmethod
    def frame(seed: int = 0, light: float = 1.0) -> NDArray[np.uint8]:
        frame = np.zeros((160, 240, 3), np.uint8)
        coarse = np.random.default_rng(seed).integers(90, 255, (6, 6, 3), np.uint8)
        frame[20:140, 100:220] = np.asarray(Image.fromarray(coarse).resize((120, 120))) * light
        frame[110:150, 10:60] = (45, 183, 142)
        return frame

    def inside(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        left, top, right, bottom = self.BOX
        return np.ascontiguousarray(frame[top:bottom, left:right])

    @pytest.mark.parametrize("options", [{}, {"tta": True}, {"tile": 64}, {"tile": 64, "tta": True}])
    def test_the_prediction_is_that_of_the_view_alone(
        self, looking: Predictor, predictor: Predictor, options: dict[str, Any]
    ) -> None:
        frame = self.frame()
        seg = looking(frame, branch_uncertainty=True, **options)
        alone = predictor(self.inside(frame), branch_uncertainty=True, **options)
        assert seg.field_of_view == self.BOX
        assert seg.mask.shape == (160, 240)
        assert 0 < seg.area == alone.area
        for name in ("probability", "uncertainty", "branch_uncertainty"):
            wanted = np.zeros((160, 240), np.float32)
            wanted[20:140, 100:220] = getattr(alone, name)
            np.testing.assert_allclose(getattr(seg, name), wanted, atol=TOLERANCE)

    def test_images_without_a_margin_are_not_changed(
        self, looking: Predictor, predictor: Predictor, folder: Path
    ) -> None:
        for one, other in zip(looking.predict(folder), predictor.predict(folder), strict=True):
            assert one.field_of_view is None
            assert difference(one, other) == 0

    def test_a_pickled_predictor_keeps_the_field_of_view(self, looking: Predictor) -> None:
        copy = pickle.loads(pickle.dumps(looking))
        assert difference(copy(self.frame()), looking(self.frame())) < TOLERANCE

    def test_a_video_keeps_the_field_of_view_in_dark_frames(self, looking: Predictor, tmp_path: Path) -> None:
        path = tmp_path / "clip.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (240, 160))
        for light in (1.0, 0.9, 0.0, 0.0, 1.0):
            writer.write(self.frame(light=light)[..., ::-1])
        writer.release()
        segs = list(looking.stream(path))
        assert len({seg.field_of_view for seg in segs}) == 1
        assert difference(segs[0], looking(segs[0].source)) < TOLERANCE
        as_images = [looking(segs[number].source).field_of_view for number in (1, 4)]
        assert all(box is not None and np.abs(np.subtract(box, self.BOX)).max() <= 4 for box in as_images)
        assert looking(segs[2].source).field_of_view is None

    def test_each_image_of_a_stream_gets_its_own_field_of_view(self, looking: Predictor) -> None:
        full = np.full((160, 240, 3), 120, np.uint8)
        boxes = [seg.field_of_view for seg in looking.stream([self.frame(), full, self.frame()])]
        assert boxes == [self.BOX, None, self.BOX]
