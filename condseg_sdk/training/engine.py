"""One stage from its first step, or its last saved epoch, to its end. The training loop is Lightning's."""

from __future__ import annotations

import os
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.optim.swa_utils import get_ema_multi_avg_fn

from condseg_sdk.errors import TrainingError
from condseg_sdk.files import atomic_write, make_folder
from condseg_sdk.json_files import write_json
from condseg_sdk.training.config import FinetuneConfig
from condseg_sdk.training.distributed import is_rank_zero, quiet_lightning
from condseg_sdk.training.history import History
from condseg_sdk.training.loaders import PairBatches
from condseg_sdk.training.stages import Stage

__all__ = ["fit", "moving_average"]

Weights = tuple[torch.Tensor, ...] | list[torch.Tensor]
LAST, BEST, FINISHED = "last.ckpt", "best.ckpt", "finished.json"
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def fit(
    stage: Stage,
    batches: PairBatches,
    folder: Path,
    *,
    epochs: int,
    config: FinetuneConfig,
    loggers: Sequence[Logger] = (),
    progress: bool = True,
) -> None:
    """Train a stage, or resume it. Afterwards `stage.network` has the weights to keep.

    These are moving averages: of the best epoch on the validation split for stage 2, of the last epoch for stage 1.

    Args:
        stage: Stage with its network.
        batches: Training and validation batches.
        folder: Folder of the stage, for last.ckpt (to resume from), best.ckpt, metrics.csv and finished.json.
        epochs: Number of epochs.
        config: Settings in which every value has been chosen.
        loggers: Loggers in addition to TensorBoard's.
        progress: Whether to show progress bars.

    Raises:
        TrainingError: The loss became NaN, the GPU is out of memory, or a checkpoint of the stage is damaged.
    """
    if not (folder / FINISHED).exists():
        if is_rank_zero():  # a faster process could create files that rank 0 takes for another run
            make_folder(folder)
            _remove_leftovers(folder)
        last = folder / LAST
        if last.exists():
            _check_continuable(last, stage)
        stage.train()
        with quiet_lightning(), _deterministic(config.deterministic), _memory_errors(config):
            trainer = _trainer(stage, folder, epochs, config, loggers, progress)
            with _keyboard_interrupt(trainer):
                trainer.fit(
                    stage, datamodule=batches, ckpt_path=str(last) if last.exists() else None, weights_only=True
                )
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            write_json(folder / FINISHED, {"epochs": trainer.current_epoch, "steps": trainer.global_step})
    kept = folder / (LAST if stage.number == 1 else BEST)
    stage.cpu().load_state_dict(_read_weights(kept, stage))


def moving_average(decay: float) -> Callable[[Weights, Weights, torch.Tensor | int], None]:
    """Return the update of a moving average whose decay rises to `decay`.

    With a constant decay the average of a short run would still contain the weights of its start: a decoder from
    random ones predicts nothing until the average has forgotten them, after thousands of steps.
    """

    def update(averaged: Weights, current: Weights, steps: torch.Tensor | int) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + int(steps)) / (10 + int(steps))))(averaged, current, steps)

    return update


def _trainer(
    stage: Stage, folder: Path, epochs: int, config: FinetuneConfig, loggers: Sequence[Logger], progress: bool
) -> L.Trainer:
    board = TensorBoardLogger(folder.parent / "tensorboard", name="", version=folder.name)
    monitor = f"stage{stage.number}/val_iou"
    callbacks: list[Callback] = [
        History(folder, stage=stage.number),
        LearningRateMonitor("epoch"),
        RelocatableCheckpoint(
            folder,
            Path(BEST).stem,
            monitor=monitor,
            mode="max",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        ),
        # Not `save_last`, which is written only when the best epoch improves: a resumed run would repeat epochs.
        RelocatableCheckpoint(folder, Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True),
    ]
    if config.ema_decay:
        callbacks.append(WeightAveraging(multi_avg_fn=moving_average(config.ema_decay)))
    if config.early_stopping_patience is not None and stage.number == 2:
        callbacks.append(
            ResumableEarlyStopping(
                monitor, mode="max", patience=config.early_stopping_patience, check_on_train_epoch_end=True
            )
        )
    if progress:
        callbacks.append(TQDMProgressBar(10))
    return L.Trainer(
        max_epochs=epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=config.strategy,
        num_nodes=config.num_nodes,
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
        gradient_clip_val=config.max_grad_norm or None,
        sync_batchnorm=config.accelerator != "cpu" and not config.freeze_batchnorm and torch.cuda.is_available(),
        use_distributed_sampler=False,  # `EpochSampler` distributes the samples
        callbacks=callbacks,
        logger=[board, *loggers],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=progress,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=10,
        deterministic=config.deterministic or None,
    )


class RelocatableCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which finds the best epoch even after the folder of the run has been moved."""

    @property
    def state_key(self) -> str:
        """Key of the state in last.ckpt, the same since version 0.1.0."""
        return super().state_key.replace(type(self).__qualname__, "_Checkpoint", 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Replace the folder in all saved paths."""
        folder = str(self.dirpath)
        paths = {
            name: str(Path(folder, Path(path).name))
            for name, path in state_dict.items()
            if name in ("best_model_path", "kth_best_model_path", "last_model_path") and path
        }
        best = {str(Path(folder, Path(path).name)): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": folder})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints under another name, flushes them to the disk and renames them: they are never incomplete.

    Lightning writes them to the temporary folder and copies them if that is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint."""
        if storage_options is not None:
            raise TypeError("storage_options do not apply to checkpoints, which are local files")

        def write(part: Path) -> None:
            with part.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # PyTorch raises it for a full disk, from the OSError
                    raise error.__context__ if isinstance(error.__context__, OSError) else error from None
                file.flush()
                os.fsync(file.fileno())

        make_folder(Path(path).parent)
        atomic_write(path, write)


def _check_continuable(last: Path, stage: Stage) -> None:
    """Raise a TrainingError for a checkpoint from which training cannot continue."""
    try:
        _read(last, stage)
    except Exception as error:  # zipfile, pickle and PyTorch raise many exceptions for damaged files
        remedy = f"delete {last.parent} to restart this stage"
        best = last.parent / BEST
        if best.exists() and last.name != BEST:
            remedy += f", or copy {best} to {last} to continue from the best epoch"
        raise TrainingError(f"{last} is damaged: {remedy}", path=last) from error


def _read_weights(kept: Path, stage: Stage) -> dict[str, Any]:
    """Read the weights in a checkpoint of a finished stage."""
    try:
        weights: dict[str, Any] = _read(kept, stage)["state_dict"]
    except Exception as error:  # as above
        remedy = f"delete {kept.parent} to train this stage again"
        last = kept.parent / LAST
        if last.exists() and kept.name != LAST:
            remedy += f", or copy {last} to {kept} to use the weights of the last epoch instead of the best"
        raise TrainingError(f"{kept} is damaged: {remedy}; then resume (resume=True, --resume)", path=kept) from error
    return weights


def _read(path: Path, stage: Stage) -> dict[str, Any]:
    """Read a checkpoint of this stage. For a damaged file, any exception may be raised.

    torch.save writes a ZIP archive with a checksum (CRC-32) for each part, which torch.load does not verify.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    expected, found = (
        {name: value.shape for name, value in s.items()} for s in (stage.state_dict(), content["state_dict"])
    )
    if found != expected:
        raise ValueError("its weights belong to another network")
    for name in ("epoch", "global_step", "loops", "callbacks", "lr_schedulers"):
        content[name]
    for optimizer in content["optimizer_states"]:
        optimizer["state"], optimizer["param_groups"]
    return content


def _remove_leftovers(folder: Path) -> None:
    """Delete temporary files of a killed process."""
    for part in folder.glob(".*"):
        if part.suffix in (".ckpt", ".csv", ".json") and len(part.stem) == 33:
            part.unlink(missing_ok=True)


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that also stops a run which was interrupted after its last epoch."""

    @property
    def state_key(self) -> str:
        """Key of the state in last.ckpt, the same since version 0.1.0."""
        return super().state_key.replace(type(self).__qualname__, "_Patience", 1)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Stop before the first step if the patience is already exhausted."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


@contextmanager
def _keyboard_interrupt(trainer: L.Trainer) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C: Lightning would exit the process, and ignore the next Ctrl-C."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Restore PyTorch's mode after a block: Lightning enables deterministic algorithms permanently."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        if wanted:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def _memory_errors(config: FinetuneConfig) -> Iterator[None]:
    """Turn PyTorch's error for too little memory into a TrainingError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"GPU out of memory at batch_size={config.batch_size}, image_size={config.image_size}: lower one of them"
        ) from error
