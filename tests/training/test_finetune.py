"""Whole runs on a small dataset: both stages, the checkpoint and its card, and settings that are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from condseg_sdk import FinetuneConfig, FinetuneResult, finetune, open_dataset
from condseg_sdk.cli import main
from condseg_sdk.errors import (
    DatasetError,
    ImageError,
    ModelNotFoundError,
    OptionError,
    TrainingError,
)
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.training.base import open_base
from condseg_sdk.training.finetune import _calibrated_score
from condseg_sdk.training.history import read_history
from condseg_sdk.training.select_threshold import trivial_baseline_iou
from condseg_sdk.weights.checkpoint import load_checkpoint, load_digests
from tests.helpers.networks import TINY
from tests.helpers.training import ONE_EPOCH, SMALL


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FinetuneResult]:
    """Folder and result of a run with both stages, two sizes, a report and a logger."""
    folder = tmp_path_factory.mktemp("run")
    result = finetune(
        dataset,
        output_dir=folder,
        config=FinetuneConfig(train_image_size=32, finish_epochs=1),
        **{**SMALL, "report": True},
        provenance={"data": "discs"},
        logger=CSVLogger(folder, name="mine", version=""),
    )
    return folder, result


Run = tuple[Path, FinetuneResult]


def test_a_run_ends_in_a_predictor_at_the_images_own_size(dataset: Path, run: Run) -> None:
    predictor = run[1].predictor
    assert predictor is run[1].predictor
    assert predictor(dataset / "images" / "0.png").mask.shape == (70, 90)
    assert predictor.preprocessing.size == (64, 64)


def test_the_threshold_chosen_is_that_of_the_checkpoint(run: Run) -> None:
    metrics = run[1].metrics
    assert run[1].predictor.threshold == metrics["threshold"]
    assert 0 <= metrics["mIoU"] <= metrics["mDSC"] <= 1


def test_the_history_has_every_epoch_of_both_stages(run: Run) -> None:
    history = run[1].history
    assert [(row["stage"], row["epoch"], row["step"]) for row in history] == [(1, 0, 2), (2, 0, 2), (2, 1, 4)]
    assert all(np.isfinite(list(row.values())).all() for row in history)


def test_the_checkpoint_records_data_and_settings(run: Run) -> None:
    provenance = json.loads((run[1].checkpoint_dir / "config.json").read_text())["provenance"]
    assert provenance["data"] == provenance["validation"]["dataset"] == "discs"
    assert provenance["training"]["epochs"] == 2


def test_settings_json_records_the_splits_and_the_reasons_of_choices(run: Run) -> None:
    saved = json.loads((run[0] / "settings.json").read_text())
    assert len(saved["split"]["validation"]) == 2
    assert not set(saved["split"]["validation"]) & set(saved["split"]["train"])
    assert saved["reasons"]["learning_rate"] == "measured on condseg-lite"


def test_a_run_writes_check_report_and_logs(run: Run) -> None:
    folder, result = run
    assert "pairs" in (folder / "check.txt").read_text()
    assert list((folder / "tensorboard").rglob("events*"))
    assert "stage2/loss" in (folder / "mine" / "metrics.csv").read_text()
    assert result.report is not None
    assert "<html" in result.report.read_text()


def test_a_run_leaves_pytorch_as_it_was(run: Run) -> None:
    assert not torch.are_deterministic_algorithms_enabled()


def test_training_and_prediction_read_16_bit_images_with_the_same_number_of_bits(dataset: Path, tmp_path: Path) -> None:
    deep = Path(shutil.copytree(dataset, tmp_path / "deep"))
    for path in (deep / "images").iterdir():
        gray = np.asarray(Image.open(path))[..., 0]
        Image.fromarray(np.rint(gray / 255 * 4095).astype(np.uint16)).save(path)
    options = {**SMALL, "stage1_epochs": 0, "epochs": 1}
    result = finetune(deep, output_dir=tmp_path / "run", **options)
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert saved["settings"]["bits"] == 12
    assert "largest value" in saved["reasons"]["bits"]
    config = json.loads((result.checkpoint_dir / "config.json").read_text())
    assert config["preprocessing"]["bits"] == result.predictor.preprocessing.bits == 12
    dark = np.full((70, 90), 200, np.uint16)  # alone it would pass for an image of 8 bits
    assert result.predictor(dark).bits == 12
    with pytest.raises(ImageError, match="pass bits=16"):
        result.predictor(np.full((70, 90), 50_000, np.uint16))
    assert result.predictor(np.full((70, 90), 50_000, np.uint16), bits=16).bits == 16
    with pytest.raises(DatasetError, match="more than bits=8 can hold"):
        finetune(deep, output_dir=tmp_path / "other", bits=8, **options)
    plain = finetune(dataset, output_dir=tmp_path / "plain", **options)
    assert "bits" not in json.loads((plain.checkpoint_dir / "config.json").read_text())["preprocessing"]


def test_a_network_that_has_not_learned_is_logged_as_a_warning(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    still = {"learning_rate": 0.0, "encoder_learning_rate": 0.0, "stage1_epochs": 0, "epochs": 1}
    finetune(dataset, output_dir=tmp_path / "run", **{**SMALL, **still})
    assert "The network has not learned: its mIoU of" in caplog.text


def test_the_trivial_baseline_is_the_better_of_full_and_empty_masks() -> None:
    masks = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    masks[0, 3, :4] = 1  # half of the image: full 0.5, empty 0; the second mask is empty: full 0, empty 1
    pairs = SimpleNamespace(values=masks)
    assert trivial_baseline_iou(pairs) == pytest.approx(0.5)  # type: ignore[arg-type]


def test_the_score_is_calibrated_where_the_validation_split_has_images_of_both_kinds() -> None:
    values = torch.zeros(16, 4, 8, 8, dtype=torch.uint8)
    values[:8, 3, :4] = 1
    logits = [np.full((8, 8), 3 + i if i < 8 else -i, np.float32) for i in range(16)]
    score = _calibrated_score(logits, SimpleNamespace(values=values))  # type: ignore[arg-type]
    assert score is not None
    assert score(8) > 0.7 > 0.3 > score(-8)
    assert _calibrated_score(logits[:8], SimpleNamespace(values=values[:8])) is None  # type: ignore[arg-type]


def test_the_model_card_names_the_data_and_all_attributions(dataset: Path, tmp_path: Path) -> None:
    options = {**SMALL, "stage1_epochs": 0, "epochs": 1}
    of_first, of_second = ({"attribution": name} for name in ("first clinic", "second clinic"))
    first = finetune(dataset, output_dir=tmp_path / "first", provenance=of_first, **options).checkpoint_dir
    card = (first / "README.md").read_text()
    assert f"- Data seen in training: {dataset.name}, 8 images (2 more chose epoch and threshold)\n" in card
    assert f"On the validation split of the training data ({dataset.name}):" in card
    assert f"name: {dataset.name}\n" in card.partition("# ")[0]
    assert "unknown" not in card.replace("license: unknown", "")
    options |= {"network": None, "base": first, "provenance": of_second}
    card = (finetune(dataset, output_dir=tmp_path / "second", **options).checkpoint_dir / "README.md").read_text()
    assert f"; before: {dataset.name}, 8 images" in card
    assert "- Attribution: second clinic; first clinic\n" in card
    assert "## Known failures\n\nNot measured." in card
    assert "is not calibrated" in card  # every image shows a disc
    of_base, own = (load_digests(tmp_path / name / "checkpoint") for name in ("first", "second"))
    assert of_base is not None
    assert own is not None
    assert len(of_base) == len(own) == 8  # the same images
    assert of_base.salt == own.salt


def test_stage_2_starts_with_the_weights_and_statistics_of_stage_1(dataset: Path, tmp_path: Path) -> None:
    """Stage 2 with a learning rate of 0 and frozen statistics keeps the encoder of stage 1."""
    still = {"learning_rate": 0.0, "encoder_learning_rate": 1e-3, "ema_decay": 0.0}
    finetune(dataset, output_dir=tmp_path / "one", **{**SMALL, **still, "epochs": 1})
    state = torch.load(tmp_path / "one" / "stage1" / "last.ckpt", weights_only=True)["state_dict"]
    first = open_base(FinetuneConfig(network=TINY, base="random")).network.state_dict()
    running = [name for name in first if name.startswith("encoder.") and name.endswith("running_mean")]
    assert running
    assert all(not torch.equal(state[f"network.{name}"], first[name]) for name in running)
    frozen = {"freeze_encoder": True, "freeze_batchnorm": True, "learning_rate": 0.0, "stage1_epochs": 0, "epochs": 1}
    finetune(dataset, output_dir=tmp_path / "two", **{**SMALL, **frozen})
    network, _ = load_checkpoint(tmp_path / "two" / "checkpoint")
    for name, value in network.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(value, first[name]), name


def test_a_frozen_encoder_keeps_its_weights_and_the_rest_changes(dataset: Path, tmp_path: Path) -> None:
    options = {**SMALL, "stage1_epochs": 0, "epochs": 1, "freeze_encoder": True, "schedule": "cosine"}
    result = finetune(dataset, output_dir=tmp_path / "run", **options, balanced_loss=True, augmentation="upright")
    first = open_base(FinetuneConfig(network=TINY, base="random")).network.state_dict()
    network, _ = load_checkpoint(result.checkpoint_dir)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, first[name])}
    assert not {name for name in changed if name.startswith("encoder.")}
    assert {"output.logits.weight", "sid.foreground.0.1.running_mean"} <= changed


def test_a_checkpoint_as_base_keeps_its_preprocessing(dataset: Path, tmp_path: Path, checkpoint: Path) -> None:
    """Weights that expect BGR/255 are trained, validated and saved with BGR/255."""
    from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint

    pixels = Preprocessing((64, 64), color_order="bgr", interpolation="area")
    network, config = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "bgr", network, CheckpointConfig(config.network, pixels, 0.5, {}))
    options = {"epochs": 1, "stage1_epochs": 0, "batch_size": 4, "progress": False, "report": False}
    result = finetune(dataset, base=tmp_path / "bgr", output_dir=tmp_path / "run", **options)  # type: ignore[arg-type]
    assert result.predictor.preprocessing == pixels
    larger = finetune(dataset, base=tmp_path / "bgr", output_dir=tmp_path / "96", image_size=96, **options)  # type: ignore[arg-type]
    assert larger.predictor.preprocessing.size == (96, 96)
    assert larger.predictor.preprocessing.color_order == "bgr"


def test_the_command_logs_each_epoch_and_fills_the_model_card(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = tmp_path / "tiny.json"
    network.write_text(json.dumps(TINY))
    arguments = ["--network", str(network), "--base", "random", "--image-size", "64", "--epochs", "2"]
    arguments += ["--stage1-epochs", "1", "--no-report", "--license", "cc0-1.0", "--attribution", "our clinic"]
    assert main(["finetune", str(dataset), *arguments, "--out", str(tmp_path / "run"), "--no-progress"]) == 0
    lines = [message for message in caplog.messages if ", epoch " in message]
    assert [line.partition(":")[0] for line in lines] == [
        "stage 1, epoch 1 of 1", "stage 2, epoch 1 of 2", "stage 2, epoch 2 of 2",
    ]  # fmt: skip
    iou = re.search(r"IoU ([\d.]+)", lines[-1])
    last = read_history(tmp_path / "run")[-1]
    assert iou is not None
    assert float(iou[1]) == pytest.approx(last["val_iou"], abs=5e-5)
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert "license: cc0-1.0\n" in card
    assert "- Attribution: our clinic\n" in card


def test_early_stopping_ends_a_run(dataset: Path, tmp_path: Path) -> None:
    options = {**SMALL, "stage1_epochs": 0, "epochs": 50, "learning_rate": 0.0, "encoder_learning_rate": 0.0}
    result = finetune(dataset, output_dir=tmp_path / "run", **options, early_stopping_patience=2, freeze_batchnorm=True)
    assert len(result.history) == 3


def test_a_loss_that_becomes_nan_is_an_error(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"loss of stage 1 became nan in epoch 0: start a new run with a lower learning_rate"
    ):
        finetune(
            dataset,
            output_dir=tmp_path / "run",
            **{**SMALL, "learning_rate": 1e30, "max_grad_norm": 0.0, "batch_size": 2},
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"base": "coco"}, ModelNotFoundError, "'coco'"),
        ({"base": "imagenet:vgg"}, OptionError, "imagenet:efficientnet_lite0"),
        ({"base": "imagenet:resnet50"}, OptionError, "does not fit a network with encoder efficientnet_lite0"),
        ({"base": "condseg-lite-polyp"}, OptionError, "is not the network"),
        ({"network": {"depth": 3}}, OptionError, "depth"),
        ({"batch_size": 64}, DatasetError, "lower batch_size"),
        ({"provenance": "cc-by-4.0"}, OptionError, r"provenance='cc-by-4.0' must be a dictionary"),
        ({"provenance": {"license": object()}}, OptionError, "provenance must contain plain JSON values"),
        ({"config": {"epochs": 1}}, OptionError, r"config=.* must be a FinetuneConfig\(...\)"),
        ({"epoch": 3}, OptionError, "did you mean epochs"),
        ({"masks": "masks"}, OptionError, r"finetune\(open_dataset\(data, masks=...\)"),
        ({"accelerator": "tpu9"}, OptionError, "accelerator"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        finetune(dataset, output_dir=tmp_path / "run", **{**SMALL, **options})
    assert not (tmp_path / "run").exists()


def test_val_fraction_belongs_to_open_dataset_where_the_data_is_divided_already(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="val_fraction has no effect on a Dataset.*: pass it to open_dataset"):
        finetune(open_dataset(dataset), output_dir=tmp_path / "run", **SMALL)


def test_a_divided_dataset_is_trained_on_as_it_is(dataset: Path, tmp_path: Path) -> None:
    divided = open_dataset(dataset, val_fraction=0.4, seed=5)
    finetune(divided, output_dir=tmp_path / "run", **{**ONE_EPOCH, "val_fraction": None})
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert saved["split"]["validation"] == [pair.name for pair in divided.validation]
    assert saved["settings"]["val_fraction"] == 0.4
