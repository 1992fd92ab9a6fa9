"""Digests of training images: copies are recognized, other images are not; in checkpoints, evaluation and the check."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from condseg_sdk import CheckpointError, Predictor, check_dataset, evaluate, open_dataset
from condseg_sdk.data.duplicates import Fingerprint, fingerprint
from condseg_sdk.data.training_digests import BITS, MAX_DISTANCE, TrainingDigests
from condseg_sdk.weights.checkpoint import load_checkpoint, load_digests, save_checkpoint
from tests.helpers.datasets import make_set


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> Image.Image:
    """A smooth image with the spectrum of natural ones."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
        for cells in (3, 6, 12, 24)
    ]
    mixed = sum(np.asarray(layer, np.float32) * weight for layer, weight in zip(layers, (8, 4, 2, 1), strict=True))
    return Image.fromarray((np.asarray(mixed) / 15).astype(np.uint8))


def of(image: Image.Image) -> Fingerprint:
    return fingerprint(np.asarray(image.convert("L")))


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


def test_copies_are_recognized_and_other_images_are_not() -> None:
    digests = TrainingDigests.of([of(scene(i)) for i in range(200)], salt=b"salt")
    image = scene(7)
    copies = [
        image,
        as_jpeg(image),
        image.resize((80, 60), Image.Resampling.LANCZOS),
        as_jpeg(image.resize((64, 64), Image.Resampling.BILINEAR)),
        ImageEnhance.Brightness(image).enhance(1.1),
    ]
    assert digests.matches([of(copy) for copy in copies]) == [True] * len(copies)
    assert not any(digests.matches([of(scene(i)) for i in range(200, 400)]))
    assert digests.matches([]) == []
    assert TrainingDigests.of([], salt=b"salt").matches([of(image)]) == [False]


def test_the_distance_at_which_images_are_the_same_is_the_number_of_different_bits() -> None:
    digests = TrainingDigests.of([of(scene(0))], salt=b"salt")
    bits = np.unpackbits(digests.values[0])
    for changed, expected in ((MAX_DISTANCE, True), (MAX_DISTANCE + 1, False)):
        other = bits.copy()
        other[:changed] ^= 1
        assert TrainingDigests(b"salt", np.packbits(other)[None]).matches([of(scene(0))]) == [expected]


def test_digests_with_different_salts_have_nothing_in_common() -> None:
    one, two = (TrainingDigests.of([of(scene(i)) for i in range(20)], salt=salt) for salt in (b"a", b"b"))
    different = np.unpackbits(one.values ^ two.values, axis=1).sum(1)
    assert 0.4 * BITS < different.mean() < 0.6 * BITS


def test_images_of_a_single_color_are_left_out() -> None:
    blank = fingerprint(np.full((40, 60), 90, np.uint8))
    digests = TrainingDigests.of([blank, of(scene(0))], salt=b"salt")
    assert len(digests) == 1
    assert digests.matches([blank]) == [False]


def test_two_thousand_digests_are_a_small_file_that_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values: NDArray[np.uint8] = rng.integers(0, 256, (2000, BITS // 8), np.uint8)
    path = tmp_path / "training_images.json"
    TrainingDigests(b"salt", values).save(path)
    assert path.stat().st_size < 45_000
    again = TrainingDigests.load(path)
    assert again.salt == b"salt"
    assert np.array_equal(again.values, values)
    for wrong in ({"digests": "@"}, {"images": 3}, {"format_version": 2}, {"salt": "x"}, {"salt": None}):
        path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
        with pytest.raises(
            CheckpointError, match="has no digests of images .*: restore it with its checkpoint, or delete"
        ):
            TrainingDigests.load(path)


@pytest.fixture
def trained(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that was trained on a and b."""
    own = make_set(tmp_path / "own", ["a", "b"], "train/images", "train/masks")
    report = check_dataset(open_dataset(make_set(own, ["v"], "val/images", "val/masks")))
    digests = report.training_digests
    assert digests is not None
    assert len(digests) == 2
    network, config = load_checkpoint(checkpoint)
    return save_checkpoint(tmp_path / "trained", network, config, digests=digests)


def disguised(own: Path, folder: Path) -> Path:
    """A test set with b of the training set under another name and at another size, and an image of its own."""
    make_set(folder, ["x", "y"])
    for kind in ("images", "masks"):
        image = Image.open(own / "train" / kind / "b.png")
        image.resize((60, 40), Image.Resampling.NEAREST).save(folder / kind / "x.png")
    return folder


def test_evaluation_warns_of_images_that_were_trained_on(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = disguised(tmp_path / "own", tmp_path / "test")
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate(Predictor.from_pretrained(trained), data)
    assert "1 of 2 images trained on before, by content, such as x" in caplog.text
    assert [image.trained_on for image in evaluation.images] == [True, False]
    assert evaluation.trained_on == 1
    assert "1 image trained on before" in str(evaluation)
    with (evaluation.save(tmp_path / "out") / "per_image.csv").open(newline="") as file:
        assert [row["trained_on"] for row in csv.DictReader(file)] == ["1", "0"]


def test_a_checkpoint_without_digests_recognizes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    predictor = Predictor.from_pretrained(checkpoint)
    assert predictor.training_images is None
    assert evaluate(predictor, make_set(tmp_path, ["a"])).trained_on is None


def test_the_check_reports_held_out_images_that_the_base_was_trained_on(trained: Path, tmp_path: Path) -> None:
    data = make_set(tmp_path / "new", ["c", "d"], "train/images", "train/masks")
    disguised(tmp_path / "own", tmp_path / "test")
    shutil.copytree(tmp_path / "test", data / "val")
    known = load_digests(trained)
    report = check_dataset(open_dataset(data), trained_on=known)
    (problem,) = [p for p in report.problems if "the base was trained on" in p.message]
    assert problem.severity == "warning"
    assert [Path(file).name for file in problem.files] == ["x.png (validation)"]
    after = report.training_digests
    assert after is not None
    assert known is not None
    assert (len(after), after.salt) == (4, known.salt)  # those of the base, and c and d
