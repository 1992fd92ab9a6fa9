"""Where every random number of a run comes from: (seed, stage, epoch, sample), and nothing else.

A sample is disturbed in the same way, up to rounding, whatever batch it stands in, however many processes share the
work, and whether or not the run was interrupted.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["epoch_seed", "permutation", "uniforms"]


def uniforms(key: tuple[int, ...], samples: Tensor, count: int) -> Tensor:
    """Independent numbers in [0, 1) for each sample.

    Args:
        key: whole numbers from 0, such as (seed, stage, epoch).
        samples: int (B,), from 0: the samples' places in the training set.
        count: numbers a sample.

    Returns:
        float32 (B, count) on the CPU.

    Example:
        >>> both = uniforms((0, 2, 5), torch.tensor([3, 8]), 4)
        >>> torch.equal(both[1:], uniforms((0, 2, 5), torch.tensor([8]), 4))
        True
    """
    rows = [np.random.default_rng((*key, int(sample))).random(count, np.float32) for sample in samples]
    return torch.from_numpy(np.stack(rows))


def permutation(key: tuple[int, ...], count: int) -> list[int]:
    """0 to count - 1 in an order that follows from the key."""
    return [int(i) for i in np.random.default_rng((*key, _ORDER)).permutation(count)]


def epoch_seed(key: tuple[int, ...]) -> int:
    """A seed for what else is random in an epoch, such as dropout in an encoder."""
    return int(np.random.default_rng((*key, _GLOBAL)).integers(2**31))


# Behind every sample's number, so that no two streams are one.
_ORDER, _GLOBAL = 2**62, 2**62 + 1
