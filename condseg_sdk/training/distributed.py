"""Processes of one run. Each of them executes all of `finetune`; only rank 0 writes files and messages."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero, rank_zero_only
from torch import distributed

# Lightning adds its own handler. In an application with logging handlers, such as our command line, each line would
# be printed twice.
if logging.getLogger().hasHandlers():
    logging.getLogger("lightning").handlers.clear()

__all__ = ["barrier", "is_rank_zero", "quiet_lightning", "rank_zero_info"]


def is_rank_zero() -> bool:
    """Return whether this is the only process, or the first of several."""
    return getattr(rank_zero_only, "rank", 0) == 0


def rank_zero_info(text: str) -> None:
    """Log a message on rank 0, where Lightning logs its own messages."""
    rank_zero.rank_zero_info(text)  # type: ignore[attr-defined]


def barrier() -> None:
    """Wait until all processes have reached this call."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's messages about the machine and its advertisements in a block; its other warnings stay."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore",
                r".*(smaller than the logging interval|in eval mode at the start|LeafSpec|Checkpoint directory)",
            )
            warnings.filterwarnings("ignore", r".*does not have many workers")
            yield
    finally:
        log.setLevel(before)
