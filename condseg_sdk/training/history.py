"""The metrics of each epoch: saved in last.ckpt, so that an interrupted run loses none, and in a CSV file.

Lightning's CSVLogger deletes the rows of earlier sessions when a run is resumed; this file is complete at any moment.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning as L

from condseg_sdk.errors import TrainingError
from condseg_sdk.files import write_csv

__all__ = ["HISTORY_FILE", "History", "read_history"]

logger = logging.getLogger("condseg_sdk")

HISTORY_FILE = "metrics.csv"
COLUMNS = ("epoch", "step", "loss", "val_loss", "val_iou", "learning_rate", "encoder_learning_rate", "seconds")


class History(L.Callback):
    """Write one row per epoch to `folder`/metrics.csv, and one line per epoch to the log, at level INFO.

    Raises:
        TrainingError: The loss became NaN or infinite.
    """

    def __init__(self, folder: Path, *, stage: int) -> None:
        self.file = folder / HISTORY_FILE
        self.stage = stage
        self.rows: list[dict[str, float]] = []
        self._start = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Add the metrics of the epoch."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics = {name: values[f"stage{self.stage}/{name}"] for name in ("loss", "val_loss", "val_iou")}
        rates = {str(group["name"]).split()[0]: group["lr"] for group in trainer.optimizers[0].param_groups}
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            **metrics,
            "learning_rate": rates["rest"],
            "encoder_learning_rate": rates.get("encoder", 0.0),
            "seconds": round(time.monotonic() - self._start, 2),
        }
        if not math.isfinite(row["loss"]):
            raise TrainingError(
                f"the loss of stage {self.stage} became {row['loss']} in epoch {trainer.current_epoch}: start a new "
                "run with a lower learning_rate or precision='float32'"
            )
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(self.file, COLUMNS, self.rows)
            logger.info(
                "stage %d, epoch %d of %s: loss %.4f, validation loss %.4f, IoU %.4f, %.0f s",
                self.stage,
                trainer.current_epoch + 1,
                trainer.max_epochs,
                *metrics.values(),
                row["seconds"],
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what last.ckpt stores."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the rows of an earlier session."""
        self.rows = list(state_dict["rows"])


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of all epochs of a run, stage 1 first.

    A damaged file is logged as a warning and its epochs are left out: nothing that was trained depends on it.

    Returns:
        One dictionary per epoch: "stage" (1 or 2), "epoch" (from 0), "step" (number of steps at its end), "loss" (mean
        over the epoch), "val_loss" and "val_iou" (of the averaged weights at threshold 0.5), "learning_rate",
        "encoder_learning_rate", "seconds".
    """
    rows: list[dict[str, float]] = []
    for stage in (1, 2):
        file = folder / f"stage{stage}" / HISTORY_FILE
        if file.exists():
            try:
                rows += _read_rows(file, stage)
            except (OSError, ValueError, OverflowError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
                logger.warning("%s is damaged (%s); its epochs are left out of the history", file, error)
    return rows


def _read_rows(file: Path, stage: int) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if set(row) != set(COLUMNS) or not all(isinstance(value, str) for value in row.values()):
                raise ValueError(f"its columns must be {', '.join(COLUMNS)}")
            numbers = {name: float(value) for name, value in row.items()}
            rows.append({"stage": stage, **numbers, "epoch": int(numbers["epoch"]), "step": int(numbers["step"])})
    return rows
