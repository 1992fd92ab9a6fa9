"""Which of a run's processes this is. Each runs the whole of `finetune`; only the first writes and speaks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero, rank_zero_only
from torch import distributed

# Lightning's root package writes to the console beside the handlers of an application that has its own, such as our
# command line: every line would come twice.
if logging.getLogger().hasHandlers():
    logging.getLogger("lightning").handlers.clear()

__all__ = ["barrier", "is_rank_zero", "quiet_lightning", "rank_zero_info"]


def is_rank_zero() -> bool:
    """Whether this is the only process, or the first of several."""
    return getattr(rank_zero_only, "rank", 0) == 0


def rank_zero_info(text: str) -> None:
    """Show the user something once, where Lightning shows its own messages."""
    rank_zero.rank_zero_info(text)  # type: ignore[attr-defined]


def barrier() -> None:
    """Wait until every process has reached this point."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's remarks on the machine and its advertisements; its warnings stay."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r".*(smaller than the logging interval|in eval mode at the start|LeafSpec)"
            )
            warnings.filterwarnings("ignore", r".*does not have many workers")
            yield
    finally:
        log.setLevel(before)
