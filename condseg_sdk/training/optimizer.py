"""AdamW with a separate learning rate for the encoder, and the two schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from condseg_sdk.training.config import Schedule

__all__ = ["Optimization"]

WARMUP = 0.1  # share of all steps
COSINE_END = 0.01  # share of the peak


@dataclass(frozen=True)
class Optimization:
    """Optimizer and schedule of a stage.

    Attributes:
        learning_rate: Peak learning rate of everything but the encoder.
        encoder_learning_rate: Peak learning rate of the encoder.
        weight_decay: Weight decay; norms and biases are not decayed.
        schedule: "one-cycle" (of PyTorch: up from a 25th of the peak, down to almost 0) or "cosine" (linear warm-up,
            then half a cosine down to a hundredth of the peak).
    """

    learning_rate: float = 1e-3
    encoder_learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    schedule: Schedule = "one-cycle"

    def optimizer(self, network: nn.Module) -> AdamW:
        """Return the optimizer of the trainable parameters of a network that has an `encoder`."""
        encoder = {id(p) for p in network.encoder.parameters()}  # type: ignore[union-attr]
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in network.parameters():
            if parameter.requires_grad:
                groups.setdefault((id(parameter) in encoder, parameter.ndim > 1), []).append(parameter)
        return AdamW(
            [
                {
                    "params": parameters,
                    "lr": self.encoder_learning_rate if is_encoder else self.learning_rate,
                    "weight_decay": self.weight_decay if decays else 0.0,
                    "name": f"{'encoder' if is_encoder else 'rest'}{'' if decays else ' (not decayed)'}",
                }
                for (is_encoder, decays), parameters in groups.items()
            ],
            lr=self.learning_rate,
        )

    def scheduler(self, optimizer: AdamW, steps: int) -> LRScheduler:
        """Return the schedule over a number of steps."""
        if self.schedule == "cosine":
            return LambdaLR(optimizer, lambda step: _cosine(step, steps))
        steps = max(steps, 3)  # shorter cycles would divide by zero
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=max(WARMUP, 2 / steps),
            cycle_momentum=False,
        )

    def configured(self, network: nn.Module, steps: int) -> Any:
        """Return optimizer and schedule in the form of `LightningModule.configure_optimizers`."""
        optimizer = self.optimizer(network)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.scheduler(optimizer, steps), "interval": "step"},
        }


def _cosine(step: int, steps: int) -> float:
    """Return the learning rate at a step, as a share of its peak."""
    warmup = max(math.ceil(WARMUP * steps), 1)
    if step < warmup:
        return (step + 1) / warmup
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * done)) / 2
