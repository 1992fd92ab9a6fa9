"""Resuming a run: what is refused, what damage is found, and that every remedy works."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

from condseg_sdk import FinetuneResult, finetune, open_dataset
from condseg_sdk.errors import (
    OptionError,
    OutputError,
    TrainingError,
)
from condseg_sdk.training.run_folder import RunFolder
from tests.helpers.training import SMALL, Interrupter

SETTINGS = {**SMALL, "deterministic": True}


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FinetuneResult]:
    """The folder and the result of a finished run, of one epoch in stage 1 and two in stage 2."""
    folder = tmp_path_factory.mktemp("run")
    return folder, finetune(dataset, output_dir=folder, **SETTINGS)


Run = tuple[Path, FinetuneResult]


def test_the_same_call_again_is_refused(dataset: Path, finished: Run) -> None:
    with pytest.raises(OptionError, match="contains a run: continue it with resume=True"):
        finetune(dataset, output_dir=finished[0], **SETTINGS)


def test_a_finished_run_is_resumed_without_training(dataset: Path, finished: Run) -> None:
    folder, result = finished
    before = (result.checkpoint_dir / "model.safetensors").read_bytes()
    again = finetune(dataset, output_dir=folder, resume=True, progress=False)
    assert (again.metrics, again.history) == (result.metrics, result.history)
    assert (result.checkpoint_dir / "model.safetensors").read_bytes() == before


def test_other_settings_are_refused_by_name(dataset: Path, finished: Run) -> None:
    with pytest.raises(OptionError, match="other values of epochs, seed"):
        finetune(dataset, output_dir=finished[0], resume=True, seed=1, epochs=9)


def test_a_copy_of_the_data_counts_as_the_same_data(dataset: Path, finished: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    assert finetune(copy, output_dir=finished[0], resume=True, progress=False).metrics == finished[1].metrics


def test_other_pairs_are_refused(dataset: Path, finished: Run, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1\n2\n3\n4\n5\n")
    other = open_dataset(dataset, train_list=tmp_path / "train.txt")
    with pytest.raises(OptionError, match="on different data: its train split had 8 pairs, not these 4"):
        finetune(other, output_dir=finished[0], resume=True)


def test_changed_masks_of_the_same_names_are_refused(dataset: Path, finished: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    mask = copy / "masks" / "3.png"
    ImageOps.invert(Image.open(mask)).save(mask)
    with pytest.raises(OptionError, match="on different data: images or masks with the same names have changed"):
        finetune(copy, output_dir=finished[0], resume=True)


def test_a_folder_inside_the_data_is_refused(dataset: Path) -> None:
    inside = dataset / "run"
    for data in (dataset, open_dataset(dataset)):
        with pytest.raises(OptionError, match=r"lies inside the data: choose a folder outside of .*discs"):
            finetune(data, output_dir=inside, **{**SMALL, "val_fraction": None})
    assert not inside.exists()


def test_a_report_folder_with_other_files_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "report").mkdir(parents=True)
    (tmp_path / "other" / "report" / "thesis.tex").touch()
    with pytest.raises(OutputError, match=r"such as thesis.tex"):
        finetune(dataset, output_dir=tmp_path / "other", **{**SMALL, "report": True})
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["report"]


def test_a_file_of_another_program_is_not_replaced(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(OutputError, match=r"summary.json was not written by condseg_sdk") as caught:
        finetune(dataset, output_dir=tmp_path, **SMALL)
    assert caught.value.path == tmp_path / "summary.json"


def test_checkpoints_without_settings_json_are_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "stage2").mkdir(parents=True)
    with pytest.raises(OptionError, match="contains stage2 of a run without settings.json"):
        finetune(dataset, output_dir=tmp_path, **SMALL)


@pytest.mark.parametrize("text", ["{}", '{"settings": {"of_tomorrow": 1}}'])
def test_a_settings_json_of_something_else_is_named(dataset: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(TrainingError, match=r"settings.json is not the settings.json of a run") as caught:
        finetune(dataset, output_dir=tmp_path, **SMALL, resume=True)
    assert caught.value.path == tmp_path / "settings.json"


def test_two_calls_cannot_use_one_folder(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder(folder).alone(first=True), pytest.raises(OptionError, match="in use by another process"):
        finetune(dataset, output_dir=folder, **SMALL)
    assert list(folder.iterdir()) == []


def flip(path: Path, position: float) -> None:
    """Flip a bit of a file, at a relative position."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 4
    path.write_bytes(content)


@pytest.fixture
def copy_of_run(tmp_path: Path, finished: Run) -> Path:
    """A copy of the finished run, to damage."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def resumed(dataset: Path, folder: Path) -> dict[str, float]:
    """The metrics of a run that is resumed."""
    return finetune(dataset, output_dir=folder, resume=True, progress=False, report=False).metrics


def test_a_truncated_checkpoint_is_named_with_a_remedy(dataset: Path, copy_of_run: Path) -> None:
    for name in ("result.json", "stage2/finished.json"):
        (copy_of_run / name).unlink()
    last = copy_of_run / "stage2" / "last.ckpt"
    for content in (last.read_bytes()[:5000], b""):
        last.write_bytes(content)
        with pytest.raises(TrainingError, match=r"last.ckpt is damaged: delete .*stage2 .*best.ckpt"):
            resumed(dataset, copy_of_run)


def test_a_finished_run_needs_only_settings_and_result(dataset: Path, copy_of_run: Path, finished: Run) -> None:
    for name in ("best.ckpt", "last.ckpt", "metrics.csv"):
        flip(copy_of_run / "stage2" / name, 0.5)
    assert resumed(dataset, copy_of_run) == finished[1].metrics


def test_a_changed_settings_json_is_refused_and_the_checkpoint_named(dataset: Path, copy_of_run: Path) -> None:
    path = copy_of_run / "settings.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 8'))
    message = r"has been changed or is damaged; the trained network in .*checkpoint is not affected"
    with pytest.raises(TrainingError, match=message):
        resumed(dataset, copy_of_run)


def test_a_damaged_result_is_made_again_from_the_checkpoints(dataset: Path, copy_of_run: Path, finished: Run) -> None:
    result = copy_of_run / "result.json"
    result.write_text('{"metrics": 1}')
    with pytest.raises(TrainingError, match="delete it and resume"):
        resumed(dataset, copy_of_run)
    result.unlink()
    assert resumed(dataset, copy_of_run) == finished[1].metrics


def test_a_damaged_best_checkpoint_can_be_replaced_by_the_last(
    dataset: Path, copy_of_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = copy_of_run / "stage2"
    best, last = stage / "best.ckpt", stage / "last.ckpt"
    (copy_of_run / "result.json").unlink()
    flip(best, 0.5)
    with pytest.raises(TrainingError, match=f"{best} is damaged: delete {stage} .*, or copy {last} to {best}"):
        resumed(dataset, copy_of_run)
    shutil.copy(last, best)
    (stage / "metrics.csv").write_bytes(b"\xff\x00")
    assert resumed(dataset, copy_of_run)["threshold"] > 0
    assert "metrics.csv is damaged" in caplog.text


def test_a_damaged_last_checkpoint_can_be_replaced_by_the_best(dataset: Path, copy_of_run: Path, finished: Run) -> None:
    stage = copy_of_run / "stage2"
    best, last = stage / "best.ckpt", stage / "last.ckpt"
    for path in (copy_of_run / "result.json", stage / "finished.json"):
        path.unlink()
    whole = last.read_bytes()
    for position in (0.3, 0.6, 0.9):
        flip(last, position)
        with pytest.raises(TrainingError, match=f"{last} is damaged: delete {stage} .*, or copy {best} to {last}"):
            resumed(dataset, copy_of_run)
        last.write_bytes(whole)
    torch.save({"state_dict": {}}, last)
    with pytest.raises(TrainingError, match="last.ckpt is damaged"):
        resumed(dataset, copy_of_run)
    shutil.copy(best, last)
    assert resumed(dataset, copy_of_run) == finished[1].metrics
    assert (stage / "finished.json").exists()


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


def test_ctrl_c_raises_keyboard_interrupt_and_the_run_can_be_resumed(
    dataset: Path, finished: Run, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        finetune(dataset, output_dir=tmp_path / "run", **SETTINGS, logger=Interrupter(tmp_path))
    assert signal.getsignal(signal.SIGINT) is before
    whole = finished[1]
    result = finetune(dataset, output_dir=tmp_path / "run", resume=True, progress=False)
    assert result.metrics == whole.metrics
    files = [run.checkpoint_dir / "model.safetensors" for run in (whole, result)]
    assert files[0].read_bytes() == files[1].read_bytes()
