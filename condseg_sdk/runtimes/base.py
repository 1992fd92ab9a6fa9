"""The interface of a runtime, and functions that need nothing else."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from condseg_sdk.models import ConDSeg

logger = logging.getLogger("condseg_sdk")


class Logits(NamedTuple):
    """Logits of a batch at the network's size.

    Attributes:
        mask: Logits of the mask, float32 (B, h, w).
        branch_uncertainty: Logits of the uncertainty branch, float32 (B, h, w); None unless requested.
    """

    mask: NDArray[np.float32]
    branch_uncertainty: NDArray[np.float32] | None


class Runtime(Protocol):
    """Executes a network. It is safe to call from several threads."""

    @property
    def device(self) -> str:
        """Device that it runs on, such as "cpu" or "cuda:0"."""

    @property
    def providers(self) -> tuple[str, ...]:
        """What executes it, such as ("torch",)."""

    @property
    def network(self) -> ConDSeg | None:
        """The network in PyTorch, float32, on the CPU; None where there is only an exported graph."""

    def check_branch_uncertainty(self) -> None:
        """Raise OptionError if the model has no uncertainty branch."""

    def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
        """Return the logits of a batch of normalized images, float32 (B, 3, h, w)."""


def uses_all_cores(device: str) -> bool:
    """Return whether a network on a device computes on the cores that decoding and resizing also need.

    Example:
        >>> uses_all_cores("cpu"), uses_all_cores("openvino:cpu"), uses_all_cores("cuda:0")
        (True, True, False)
    """
    return device == "cpu" or device.endswith(":cpu")


@cache
def log_cpu() -> None:
    """Log that device="auto" found no GPU, once per process."""
    logger.info("no GPU can be used: running on the CPU")


def run_flipped(runtime: Runtime, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
    """Average the logits over four flips of the images, each flipped back (test-time augmentation).

    The arguments and the result are the same as for `runtime.run`; it takes four times as long.
    """
    totals: list[NDArray[np.float32]] = []
    for axes in ((), (-1,), (-2,), (-2, -1)):
        maps = runtime.run(np.ascontiguousarray(np.flip(batch, axes)), branch_uncertainty=branch_uncertainty)
        logits = [np.flip(x, axes) for x in maps if x is not None]
        totals = [a + b for a, b in zip(totals, logits, strict=True)] if totals else logits
    means = [total / np.float32(4) for total in totals]
    return Logits(means[0], means[1] if branch_uncertainty else None)
