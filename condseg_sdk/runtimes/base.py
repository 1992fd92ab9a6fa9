"""The one thing the rest of the package knows about a runtime, and what can be built on that alone."""

from __future__ import annotations

import logging
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("condseg_sdk")


class Logits(NamedTuple):
    """Logits of a batch at the network's size, float32 (B, h, w); `uncertainty` is None unless asked for."""

    mask: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None


class Runtime(Protocol):
    """Executes a network. Safe to call from several threads."""

    @property
    def device(self) -> str:
        """Where it really runs, such as "cpu" or "cuda:0"."""

    @property
    def providers(self) -> tuple[str, ...]:
        """What really executes it, such as ("torch",)."""

    def check_uncertainty(self) -> None:
        """Raise OptionError if there is no uncertainty map to be had."""

    def run(self, batch: NDArray[np.float32], *, uncertainty: bool) -> Logits:
        """Logits for a batch of normalised images, float32 (B, 3, h, w)."""


@cache
def say_cpu() -> None:
    """Once a process: device="auto" found no GPU."""
    logger.info("no GPU can be used: running on the CPU")


def run_flipped(runtime: Runtime, batch: NDArray[np.float32], *, uncertainty: bool) -> Logits:
    """Test-time augmentation: the mean of the logits over the four mirror images, each mirrored back.

    Takes four times as long as `runtime.run`, whose arguments and result these are.
    """
    totals: list[NDArray[np.float32]] = []
    for axes in ((), (-1,), (-2,), (-2, -1)):
        maps = runtime.run(np.ascontiguousarray(np.flip(batch, axes)), uncertainty=uncertainty)
        answers = [np.flip(x, axes) for x in maps if x is not None]
        totals = [a + b for a, b in zip(totals, answers, strict=True)] if totals else answers
    means = [total / np.float32(4) for total in totals]
    return Logits(means[0], means[1] if uncertainty else None)
