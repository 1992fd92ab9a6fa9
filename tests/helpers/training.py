"""Settings for runs of a few steps, and a logger that interrupts a run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import CSVLogger

from tests.helpers.networks import TINY

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
ONE_EPOCH: dict[str, Any] = {**SMALL, "stage1_epochs": 0, "epochs": 1}


class Interrupter(CSVLogger):
    """Presses Ctrl-C at the end of the second epoch of stage 2."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        """Raise KeyboardInterrupt as a signal handler would."""
        if "stage2/loss" in metrics and metrics["epoch"] == 1:
            raise KeyboardInterrupt
