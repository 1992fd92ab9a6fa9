"""All random numbers of a run, which follow from (seed, stage, epoch, sample) alone.

The augmentation of a sample is the same, up to rounding, in any batch, for any number of processes, and with or without
an interruption of the run.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["epoch_seed", "permutation", "scaled", "uniforms"]


def uniforms(key: tuple[int, ...], samples: Tensor, count: int) -> Tensor:
    """Return independent random numbers in [0, 1) for each sample.

    Args:
        key: Integers from 0, such as (seed, stage, epoch).
        samples: Sample numbers, int (B,), from 0.
        count: Number of random numbers per sample.

    Returns:
        float32 (B, count) on the CPU.

    Example:
        >>> both = uniforms((0, 2, 5), torch.tensor([3, 8]), 4)
        >>> torch.equal(both[1:], uniforms((0, 2, 5), torch.tensor([8]), 4))
        True
    """
    # One copy from the GPU, where there is one, and not one for each sample.
    rows = [np.random.default_rng((*key, sample)).random(count, np.float32) for sample in samples.tolist()]
    return torch.from_numpy(np.stack(rows))


def scaled(u: Tensor, low: float, high: float) -> Tensor:
    """Scale random numbers from [0, 1) to [low, high)."""
    return low + (high - low) * u


def permutation(key: tuple[int, ...], count: int) -> list[int]:
    """Return 0 to count - 1 in a random order that follows from the key."""
    return [int(i) for i in np.random.default_rng((*key, _ORDER)).permutation(count)]


def epoch_seed(key: tuple[int, ...]) -> int:
    """Return a seed for everything else that is random in an epoch, such as dropout in an encoder."""
    return int(np.random.default_rng((*key, _GLOBAL)).integers(2**31))


# Larger than any sample number, so no two sequences are the same.
_ORDER, _GLOBAL = 2**62, 2**62 + 1
