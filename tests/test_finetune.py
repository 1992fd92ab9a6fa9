"""A whole run on a small set: both stages, selection, checkpoint, resumption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condseg_sdk import FinetuneSettings, Predictor, finetune
from condseg_sdk.errors import DatasetError, ModelNotFoundError, OptionError

SMALL = FinetuneSettings(
    base="random",
    image_size=64,
    train_size=32,
    finish_epochs=1,
    epochs=2,
    stage1_epochs=1,
    batch_size=4,
    validation=0.2,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Ten images with a bright disc, which is the mask."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:70, :90]
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(10):
        y, x = rng.integers(20, 50), rng.integers(25, 65)
        mask = (rows - y) ** 2 + (columns - x) ** 2 < 200
        pixels = rng.integers(0, 60, (70, 90, 3)) + 180 * mask[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data/images" / f"{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "data/masks" / f"{number}.png")
    return tmp_path / "data"


def test_a_run_ends_in_a_checkpoint_that_predicts_and_knows_how_it_was_made(dataset: Path, tmp_path: Path) -> None:
    result = finetune(dataset, output_dir=tmp_path / "run", settings=SMALL, provenance={"data": "discs"})
    predictor = Predictor.from_pretrained(result.checkpoint_dir)
    seg = predictor(dataset / "images" / "0.png")
    assert seg.mask.shape == (70, 90)
    assert predictor.preprocessing.size == (64, 64)
    assert predictor.threshold == result.metrics["threshold"]
    assert 0 <= result.metrics["mIoU"] <= result.metrics["mDSC"] <= 1
    provenance = json.loads((result.checkpoint_dir / "config.json").read_text())["provenance"]
    assert provenance["data"] == "discs"
    assert provenance["training"]["epochs"] == 2
    split = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert len(split["held_out"]) == 2
    assert not set(split["held_out"]) & set(split["training"])

    # The same call again finds everything done and gives the same weights; other settings are refused.
    before = (result.checkpoint_dir / "model.safetensors").read_bytes()
    assert finetune(dataset, output_dir=tmp_path / "run", settings=SMALL, provenance={"data": "discs"}) == result
    assert (result.checkpoint_dir / "model.safetensors").read_bytes() == before
    with pytest.raises(OptionError, match="other settings"):
        finetune(dataset, output_dir=tmp_path / "run", settings=replace(SMALL, seed=1))


def test_stage_one_hands_over_weights_and_batchnorm_statistics(dataset: Path, tmp_path: Path) -> None:
    from condseg_sdk.models import NETWORKS, ConDSeg
    from condseg_sdk.training.data import find_pairs
    from condseg_sdk.training.finetune import _loaders, _run_stage1

    network = ConDSeg(**NETWORKS["condseg-lite"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pairs = find_pairs(dataset)
    _run_stage1(SMALL, network, _loaders(SMALL, pairs[:8], pairs[8:]), tmp_path / "stage1")
    saved = torch.load(tmp_path / "stage1" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in network.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(value, saved[f"network.{name}"]), name
        else:
            assert torch.equal(value, before[name]), name
    running = [n for n in before if n.startswith("encoder.") and n.endswith("running_mean")]
    assert running
    assert all(not torch.equal(network.state_dict()[n], before[n]) for n in running)


def test_too_few_pairs_for_a_batch_are_refused_before_anything_is_written(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="lower batch_size"):
        finetune(dataset, output_dir=tmp_path / "run", settings=replace(SMALL, batch_size=64))
    assert not (tmp_path / "run").exists()


def test_a_base_that_does_not_fit_is_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path, checkpoint: Path
) -> None:
    for base, error, message in (
        ("coco", ModelNotFoundError, "'coco'"),
        (str(checkpoint), OptionError, "no condseg-lite"),
    ):
        with pytest.raises(error, match=message):
            finetune(dataset, output_dir=tmp_path / "run", settings=replace(SMALL, base=base))
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"network": "unet"}, "condseg-lite"),
        ({"epochs": 0}, "at least 1"),
        ({"validation": 1.0}, "between 0 and 1"),
    ],
)
def test_settings_are_checked_at_the_door(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FinetuneSettings(**wrong)  # type: ignore[arg-type]
