"""A whole run on a small set: both stages, selection, checkpoint, choices, and what is refused before the first step."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image, ImageOps

from condseg_sdk import ConDSeg, FinetuneConfig, Predictor, finetune, open_dataset
from condseg_sdk.errors import (
    DatasetError,
    ImageError,
    ModelNotFoundError,
    OptionError,
    OutputError,
    TrainingError,
)
from condseg_sdk.models import NETWORKS
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.training.base import Base, open_base
from condseg_sdk.training.history import read_history
from condseg_sdk.training.plan import DatasetStats, Machine, check_precision, detect_machine, make_plan
from condseg_sdk.training.run_folder import RunFolder
from condseg_sdk.training.select_threshold import trivial_baseline_iou
from condseg_sdk.weights.checkpoint import load_checkpoint
from tests.helpers.networks import TINY

CPU = Machine("cpu", 1, 0, bfloat16=False, cores=2)
SMALL: dict[str, Any] = {
    "network": TINY,
    "base": "random",
    "image_size": 64,
    "epochs": 2,
    "stage1_epochs": 1,
    "batch_size": 4,
    "val_fraction": 0.2,
    "progress": False,
    "report": False,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images with a bright disc, which is the mask."""
    folder = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:70, :90]
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(10):
        y, x = rng.integers(20, 50), rng.integers(25, 65)
        mask = (rows - y) ** 2 + (columns - x) ** 2 < 200
        pixels = rng.integers(0, 60, (70, 90, 3)) + 180 * mask[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{number}.png")
    return folder


def test_a_run_ends_in_a_checkpoint_that_predicts_and_knows_how_it_was_made(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = {**SMALL, "train_image_size": 32, "finish_epochs": 1, "report": True}
    mine = CSVLogger(tmp_path, name="mine", version="")
    result = finetune(dataset, output_dir=run, **options, provenance={"data": "discs"}, logger=mine)
    assert result.predictor is result.predictor
    seg = result.predictor(dataset / "images" / "0.png")
    assert seg.mask.shape == (70, 90)
    assert result.predictor.preprocessing.size == (64, 64)
    assert result.predictor.threshold == result.metrics["threshold"]
    assert 0 <= result.metrics["mIoU"] <= result.metrics["mDSC"] <= 1
    assert [(row["stage"], row["epoch"], row["step"]) for row in result.history] == [(1, 0, 2), (2, 0, 2), (2, 1, 4)]
    assert all(np.isfinite(list(row.values())).all() for row in result.history)
    provenance = json.loads((result.checkpoint_dir / "config.json").read_text())["provenance"]
    assert provenance["data"] == provenance["validation"]["dataset"] == "discs"
    assert provenance["training"]["epochs"] == 2
    saved = json.loads((run / "settings.json").read_text())
    assert len(saved["split"]["validation"]) == 2
    assert not set(saved["split"]["validation"]) & set(saved["split"]["train"])
    assert saved["reasons"]["learning_rate"] == "measured on condseg-lite"
    assert "part" in (run / "check.txt").read_text()
    assert list((run / "tensorboard").rglob("events*"))
    assert "stage2/loss" in (tmp_path / "mine" / "metrics.csv").read_text()
    assert result.report is not None
    assert "<html" in result.report.read_text()
    assert not torch.are_deterministic_algorithms_enabled()

    # The same call again is refused, or finds everything done; other settings and other data are refused.
    before = (result.checkpoint_dir / "model.safetensors").read_bytes()
    with pytest.raises(OptionError, match="contains a run: continue it with resume=True"):
        finetune(dataset, output_dir=run, **options)
    again = finetune(dataset, output_dir=run, resume=True, progress=False)
    assert (again.metrics, again.history) == (result.metrics, result.history)
    assert (result.checkpoint_dir / "model.safetensors").read_bytes() == before
    with pytest.raises(OptionError, match="another epochs, seed"):
        finetune(dataset, output_dir=run, resume=True, seed=1, epochs=9)
    (tmp_path / "train.txt").write_text("1\n2\n3\n4\n5\n")
    with pytest.raises(OptionError, match="on other data: its train split had 8 pairs, not these 4"):
        finetune(open_dataset(dataset, train_list=tmp_path / "train.txt"), output_dir=run, resume=True)
    copy = shutil.copytree(dataset, tmp_path / "copy")
    assert finetune(copy, output_dir=run, resume=True, progress=False).metrics == result.metrics
    mask = copy / "masks" / "3.png"
    ImageOps.invert(Image.open(mask)).save(mask)
    with pytest.raises(OptionError, match="on other data: images or masks of the same names have changed"):
        finetune(copy, output_dir=run, resume=True)


def test_training_evaluation_and_prediction_read_16_bit_images_alike(dataset: Path, tmp_path: Path) -> None:
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
    with pytest.raises(ImageError, match="give bits=16"):
        result.predictor(np.full((70, 90), 50_000, np.uint16))
    assert result.predictor(np.full((70, 90), 50_000, np.uint16), bits=16).bits == 16
    with pytest.raises(DatasetError, match="more than bits=8 can hold"):
        finetune(deep, output_dir=tmp_path / "other", bits=8, **options)
    plain = finetune(dataset, output_dir=tmp_path / "plain", **options)
    assert "bits" not in json.loads((plain.checkpoint_dir / "config.json").read_text())["preprocessing"]


def test_a_run_folder_that_cannot_be_used_is_refused(dataset: Path, tmp_path: Path) -> None:
    inside = dataset / "run"
    with pytest.raises(OptionError, match=r"lies inside the data: choose a folder outside of .*discs"):
        finetune(dataset, output_dir=inside, **SMALL)
    assert not inside.exists()
    (tmp_path / "other" / "report").mkdir(parents=True)
    (tmp_path / "other" / "report" / "thesis.tex").touch()
    with pytest.raises(OutputError, match=r"holds other files, such as thesis.tex"):
        finetune(dataset, output_dir=tmp_path / "other", **{**SMALL, "report": True})
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["report"]
    with pytest.raises(OptionError, match="must be a logger of Lightning"):
        finetune(dataset, output_dir=tmp_path / "new", **SMALL, logger="tensorboard")
    (tmp_path / "left" / "stage2").mkdir(parents=True)
    with pytest.raises(OptionError, match="contains stage2 of a run without settings.json"):
        finetune(dataset, output_dir=tmp_path / "left", **SMALL)
    for text in ("{}", '{"settings": {"of_tomorrow": 1}}'):
        (tmp_path / "left" / "settings.json").write_text(text)
        with pytest.raises(TrainingError, match=r"settings.json is not the settings.json of a run"):
            finetune(dataset, output_dir=tmp_path / "left", **SMALL, resume=True)


def test_two_calls_do_not_share_a_folder(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder(folder).alone(first=True), pytest.raises(OptionError, match="in use by another process"):
        finetune(dataset, output_dir=folder, **SMALL)
    assert list(folder.iterdir()) == []


def test_a_damaged_checkpoint_is_named_with_a_remedy(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(dataset, output_dir=run, **{**SMALL, "epochs": 1, "stage1_epochs": 0})
    for name in ("result.json", "stage2/finished.json"):
        (run / name).unlink()
    last = run / "stage2" / "last.ckpt"
    for content in (last.read_bytes()[:5000], b""):
        last.write_bytes(content)
        with pytest.raises(TrainingError, match=r"last.ckpt is damaged: delete .*stage2 .*best.ckpt"):
            finetune(dataset, output_dir=run, resume=True, progress=False)


def flip(path: Path, position: float) -> None:
    """Flip a bit of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 4
    path.write_bytes(content)


def test_damage_to_a_runs_own_files_is_found_and_every_remedy_works(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    begun = finetune(dataset, output_dir=run, **{**SMALL, "epochs": 2, "stage1_epochs": 0})
    stage, result, finished = run / "stage2", run / "result.json", run / "stage2" / "finished.json"
    best, last = (stage / name for name in ("best.ckpt", "last.ckpt"))

    def again() -> dict[str, float]:
        return finetune(dataset, output_dir=run, resume=True, progress=False, report=False).metrics

    # Of a finished run: nothing but settings and data is needed, and what is trained is named.
    whole = {path: path.read_bytes() for path in (best, last, stage / "metrics.csv", run / "settings.json")}
    for path in (best, last, stage / "metrics.csv"):
        flip(path, 0.5)
    assert again() == begun.metrics
    path = run / "settings.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 8'))
    with pytest.raises(
        TrainingError, match=r"has been changed or is damaged; the trained network in .*checkpoint is not affected"
    ):
        again()
    path.write_bytes(whole[path])
    # Of a run whose last step is still to be done: metrics.csv is only for people.
    result.write_text('{"metrics": 1}')
    with pytest.raises(TrainingError, match="lacks metrics or history; delete it and resume"):
        again()
    result.unlink()
    with pytest.raises(TrainingError, match=f"{best} is damaged: delete {stage} .*, or copy {last} to {best}"):
        again()
    last.write_bytes(whole[last])
    shutil.copy(last, best)
    (stage / "metrics.csv").write_bytes(b"\xff\x00")
    assert again()["threshold"] > 0
    assert "metrics.csv is damaged" in caplog.text
    # Of a run in the middle.
    for path in (result, finished):
        path.unlink()
    best.write_bytes(whole[best])
    for position in (0.3, 0.6, 0.9):
        flip(last, position)
        with pytest.raises(TrainingError, match=f"{last} is damaged: delete {stage} .*, or copy {best} to {last}"):
            again()
        last.write_bytes(whole[last])
    torch.save({"state_dict": {}}, last)
    with pytest.raises(TrainingError, match="last.ckpt is damaged"):
        again()
    shutil.copy(best, last)
    assert again() == begun.metrics
    assert finished.exists()


def test_a_run_that_was_moved_remembers_its_best_epoch(
    dataset: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    options = {**SMALL, "stage1_epochs": 0, "epochs": 4, "ema_decay": 0.0}
    with pytest.raises(KeyboardInterrupt):
        finetune(dataset, output_dir=tmp_path / "before", **options, logger=Interrupter(tmp_path, name="log"))
    moved = (tmp_path / "before").rename(tmp_path / "after")
    result = finetune(dataset, output_dir=moved, **options, resume=True)
    assert len(result.history) == 4
    kept = torch.load(moved / "stage2" / "best.ckpt", weights_only=True)["epoch"]
    ious = [row["val_iou"] for row in result.history]
    assert kept == ious.index(max(ious))
    assert not [warning for warning in recwarn if "dirpath" in str(warning.message)]


def test_a_network_that_has_not_learned_is_said(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    still = {"learning_rate": 0.0, "encoder_learning_rate": 0.0, "stage1_epochs": 0, "epochs": 1}
    finetune(dataset, output_dir=tmp_path / "run", **{**SMALL, **still})
    assert "The network has not learned: its mIoU of" in caplog.text


def test_the_blind_answer_is_the_better_of_full_and_empty_masks() -> None:
    masks = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    masks[0, 3, :4] = 1  # half of the picture: full 0.5, empty 0; the second mask is empty: full 0, empty 1
    pairs = SimpleNamespace(values=masks)
    assert trivial_baseline_iou(pairs) == pytest.approx(0.5)  # type: ignore[arg-type]


def test_the_card_names_the_data(dataset: Path, tmp_path: Path) -> None:
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


def test_stage_one_hands_over_weights_and_batchnorm_statistics(dataset: Path, tmp_path: Path) -> None:
    """Stage 2 with a rate of zero and frozen statistics leaves what stage 1 made of the encoder."""
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


def test_what_is_frozen_stays_and_the_rest_moves(dataset: Path, tmp_path: Path) -> None:
    options = {**SMALL, "stage1_epochs": 0, "epochs": 1, "freeze_encoder": True, "schedule": "cosine"}
    result = finetune(dataset, output_dir=tmp_path / "run", **options, balanced_loss=True, augmentation="upright")
    first = open_base(FinetuneConfig(network=TINY, base="random")).network.state_dict()
    network, _ = load_checkpoint(result.checkpoint_dir)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, first[name])}
    assert not {name for name in changed if name.startswith("encoder.")}
    assert {"output.logits.weight", "sid.foreground.0.1.running_mean"} <= changed


def test_a_checkpoint_as_base_keeps_its_pixels(dataset: Path, tmp_path: Path, checkpoint: Path) -> None:
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


def test_the_command_says_a_line_an_epoch_without_bars_and_passes_on_the_card(dataset: Path, tmp_path: Path) -> None:
    network = tmp_path / "tiny.json"
    network.write_text(json.dumps(TINY))
    arguments = ["--network", str(network), "--base", "random", "--image-size", "64", "--epochs", "2"]
    arguments += ["--stage1-epochs", "1", "--no-report", "--license", "cc0-1.0", "--attribution", "our clinic"]
    command = [sys.executable, "-m", "condseg_sdk.cli", "finetune", str(dataset), *arguments]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), "--no-progress"], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if ", epoch " in line]
    assert [line.partition(":")[2].partition(":")[0] for line in lines] == [
        " stage 1, epoch 1 of 1", " stage 2, epoch 1 of 2", " stage 2, epoch 2 of 2",
    ]  # fmt: skip
    figures = re.search(r"IoU ([\d.]+)", lines[-1])
    last = read_history(tmp_path / "run")[-1]
    assert figures is not None
    assert float(figures[1]) == pytest.approx(last["val_iou"], abs=5e-5)
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert "license: cc0-1.0\n" in card
    assert "- Attribution: our clinic\n" in card


def test_patience_ends_a_run_early(dataset: Path, tmp_path: Path) -> None:
    options = {**SMALL, "stage1_epochs": 0, "epochs": 50, "learning_rate": 0.0, "encoder_learning_rate": 0.0}
    result = finetune(dataset, output_dir=tmp_path / "run", **options, early_stopping_patience=2, freeze_batchnorm=True)
    assert len(result.history) == 3


class Interrupter(CSVLogger):
    """Presses Ctrl-C when the second epoch of stage 2 is over."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        if "stage2/loss" in metrics and metrics["epoch"] == 1:
            raise KeyboardInterrupt


def test_ctrl_c_comes_out_as_such_and_the_run_can_go_on(dataset: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    options = {**SMALL, "epochs": 3, "deterministic": True}
    with pytest.raises(KeyboardInterrupt):
        finetune(dataset, output_dir=tmp_path / "run", **options, logger=Interrupter(tmp_path))
    assert signal.getsignal(signal.SIGINT) is before
    whole = finetune(dataset, output_dir=tmp_path / "whole", **options)
    result = finetune(dataset, output_dir=tmp_path / "run", resume=True, progress=False)
    assert result.metrics == whole.metrics
    files = [run.checkpoint_dir / "model.safetensors" for run in (whole, result)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_loss_that_is_no_number_is_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"loss of stage 1 became nan in epoch 0: start a new run with a lower learning_rate"
    ):
        finetune(
            dataset,
            output_dir=tmp_path / "run",
            **{**SMALL, "learning_rate": 1e30, "max_grad_norm": 0.0, "batch_size": 2},
        )


# What is refused before anything is written


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
        ({"provenance": {"license": object()}}, OptionError, "provenance must hold plain JSON values"),
        ({"epoch": 3}, OptionError, "did you mean epochs"),
        ({"masks": "masks"}, OptionError, r"finetune\(open_dataset\(data, masks=...\)"),
        ({"accelerator": "tpu9"}, OptionError, "accelerator"),
    ],
)
def test_settings_that_do_not_fit(
    dataset: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        finetune(dataset, output_dir=tmp_path / "run", **{**SMALL, **options})
    assert not (tmp_path / "run").exists()


# Choices


@pytest.fixture(scope="module")
def lite() -> Base:
    return open_base(FinetuneConfig(base="random"))


@pytest.mark.parametrize(
    ("stats", "machine", "expected"),
    [
        (
            DatasetStats(880, 88, 1000, 1.0),
            CPU,
            {"batch_size": 8, "image_size": 256, "precision": "float32", "epochs": 10},
        ),
        (DatasetStats(48, 12, 1000, 1.0), CPU, {"batch_size": 4, "epochs": 83}),
        (DatasetStats(20, 5, 100, 1.0), CPU, {"batch_size": 4, "image_size": 128, "epochs": 100}),
        (DatasetStats(3, 1, 30, 1.0), CPU, {"batch_size": 3, "image_size": 64}),
        (DatasetStats(1000, 100, 900, 0.2), CPU, {"oversample": 0.5}),
        (
            DatasetStats(2000, 200, 600, 1.0),
            Machine("gpu", 2, 80.0, bfloat16=True, cores=32),
            {"batch_size": 64, "precision": "bfloat16", "num_workers": 0, "epochs": 100},
        ),
        (DatasetStats(2000, 200, 600, 1.0), Machine("gpu", 1, 11.0, bfloat16=False, cores=8), {"precision": "float32"}),
        (DatasetStats(60_000, 100, 600, 1.0), Machine("gpu", 2, 11.0, bfloat16=False, cores=8), {"num_workers": 3}),
    ],
)
def test_choices_follow_from_data_and_machine(
    lite: Base, stats: DatasetStats, machine: Machine, expected: dict[str, Any]
) -> None:
    plan = make_plan(FinetuneConfig(), lite, stats, machine)
    values = plan.config.to_dict()
    assert {name: values[name] for name in expected} == expected
    assert None not in [values[name] for name in plan.reasons]
    assert len(plan.lines()) == len(plan.reasons)


def test_a_base_that_was_named_keeps_its_size_and_the_default_one_follows_the_data() -> None:
    stats = DatasetStats(20, 5, 100, 1.0)
    for settings, side in ((FinetuneConfig(), 128), (FinetuneConfig(base="condseg-lite-polyp"), 256)):
        assert make_plan(settings, open_base(settings), stats, CPU).config.image_size == side


def test_more_devices_than_pairs_are_refused_with_a_remedy_that_helps(lite: Base) -> None:
    seven = Machine("cpu", 7, 0.0, bfloat16=False, cores=8)
    with pytest.raises(OptionError, match="6 training pairs are fewer than the 7 devices: use fewer devices"):
        make_plan(FinetuneConfig(), lite, DatasetStats(6, 2, 300, 1.0), seven)
    assert (
        make_plan(FinetuneConfig(), lite, DatasetStats(6, 2, 300, 1.0), replace(seven, devices=2)).config.batch_size
        == 6
    )


def test_an_accelerator_that_is_not_there_is_refused_with_its_remedy() -> None:
    with pytest.raises(
        OptionError, match=r"^accelerator='tpu' cannot be used on this machine \(.*--accelerator cpu\)$"
    ):
        detect_machine(FinetuneConfig(accelerator="tpu"))
    assert detect_machine(FinetuneConfig(accelerator="cpu")).kind == "cpu"


def test_what_is_given_is_not_chosen(lite: Base) -> None:
    settings = FinetuneConfig(batch_size=2, epochs=7, precision="float16", ema_decay=0.0)
    plan = make_plan(settings, lite, DatasetStats(100, 10, 300, 1.0), Machine("gpu", 1, 11.0, bfloat16=False, cores=8))
    assert (plan.config.batch_size, plan.config.epochs, plan.config.precision) == (2, 7, "float16")
    assert plan.config.ema_decay == 0.0
    assert plan.reasons["epochs"] == "as given"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_cpu_trains_in_float32(lite: Base, precision: Any) -> None:
    plan = make_plan(FinetuneConfig(precision=precision), lite, DatasetStats(100, 10, 300, 1.0), CPU)
    with pytest.raises(OptionError, match="is for GPUs"):
        check_precision(plan.config, CPU)
    check_precision(plan.config, Machine("gpu", 1, 11.0, bfloat16=False, cores=8))


@pytest.mark.parametrize(
    ("settings", "encoder", "mean"),
    [({}, "efficientnet_lite0", 127.0), ({"base": "imagenet:efficientnet_lite0"}, "efficientnet_lite0", 127.0)],
)
def test_bases(settings: dict[str, Any], encoder: str, mean: float) -> None:
    base = open_base(FinetuneConfig(**settings))
    assert base.network.arguments["encoder"] == encoder
    assert base.preprocessing.mean[0] == mean
    random = open_base(FinetuneConfig(base="random"))
    weights: Callable[[ConDSeg], torch.Tensor] = lambda network: next(network.encoder.parameters())  # noqa: E731
    assert not torch.equal(weights(base.network), weights(random.network))
    polyp = open_base(FinetuneConfig(base="condseg-lite-polyp"))
    for same in ({}, {"network": "condseg-lite"}, {"network": NETWORKS["condseg-lite"]}):
        default = open_base(FinetuneConfig(**same))
        assert default.name == polyp.name
        assert torch.equal(weights(default.network), weights(polyp.network))
    wider = {**NETWORKS["condseg-lite"], "sid_channels": 128}
    assert open_base(FinetuneConfig(network=wider)).name == "imagenet:efficientnet_lite0"
    assert polyp.is_checkpoint
    assert polyp.attribution is not None
    assert re.search(r"Kvasir-SEG .*\(cc-by-4.0\)$", polyp.attribution)
    assert polyp.preprocessing == Predictor.from_pretrained("condseg-lite-polyp").preprocessing


def test_the_field_of_view_is_the_one_asked_for_or_that_of_a_base_that_is_named() -> None:
    def view(**settings: Any) -> str:
        return open_base(FinetuneConfig(**settings)).preprocessing.field_of_view

    assert view(base="condseg-lite-polyp") == "endoscopy"
    assert view() == "none"  # the same weights, and perhaps glands on white glass
    assert view(base="condseg-lite-polyp", field_of_view="none") == "none"
    assert view(field_of_view="endoscopy") == "endoscopy"
    assert view(base="random") == "none"
    with pytest.raises(OptionError, match="field_of_view='ultrasound'"):
        FinetuneConfig(field_of_view="ultrasound")  # type: ignore[arg-type]
