"""A run that version 0.1.0 began: its settings.json has other names for some settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import OptionError, finetune
from condseg_sdk.cli import main
from condseg_sdk.training.engine import RelocatableCheckpoint, ResumableEarlyStopping

SETTINGS = Path(__file__).parents[1] / "assets" / "run_0_1_0" / "settings.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images and masks of that run, bit for bit."""
    folder = tmp_path_factory.mktemp("bars")
    y, x = np.mgrid[:24, :32]
    for n in range(10):
        mask = (x > 2 * n) & (x < 2 * n + 10) & (y > 4) & (y < 20)
        texture = np.stack([(x * (n + 1) * 5 + y * 3) % 100, (y * (n + 2) * 7) % 100, (x * y) % 100], 2)
        for kind, pixels in (("images", texture + 150 * mask[..., None]), ("masks", mask * 255)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{n}.bmp")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(SETTINGS, folder)
    return folder


def test_it_is_resumed_to_its_end_with_the_settings_it_began_with(data: Path, run: Path) -> None:
    result = finetune(data, output_dir=run, resume=True, early_stopping_patience=5, progress=False, report=False)
    assert [(row["stage"], row["epoch"], row["step"]) for row in result.history] == [(1, 0, 1), (2, 0, 1), (2, 1, 2)]
    provenance = json.loads((result.checkpoint_dir / "config.json").read_text())["provenance"]
    began_with = json.loads(SETTINGS.read_text())["settings"]
    assert provenance["training"]["train_image_size"] == began_with["train_size"] == 32
    assert provenance["training"]["max_grad_norm"] == began_with["gradient_clip"] == 0.5
    assert provenance["license"] == "cc0-1.0"


def test_the_command_line_divides_the_data_as_the_run_began(data: Path, run: Path) -> None:
    assert main(["finetune", str(data), "--out", str(run), "--resume", "--no-report"]) == 0
    assert (run / "checkpoint" / "model.safetensors").exists()


def test_another_setting_than_it_began_with_is_refused(data: Path, run: Path) -> None:
    with pytest.raises(OptionError, match="contains a run with other values of max_grad_norm"):
        finetune(data, output_dir=run, resume=True, max_grad_norm=2.0)


def test_last_ckpt_names_the_callbacks_as_version_0_1_0_did(tmp_path: Path) -> None:
    assert RelocatableCheckpoint(tmp_path, "last").state_key.startswith("_Checkpoint{")
    assert ResumableEarlyStopping("stage2/val_iou").state_key.startswith("_Patience{")
