"""Batches: the samples of an epoch, their order, and their distribution over processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from condseg_sdk.data import CachedPairs
from condseg_sdk.training.randomness import permutation

__all__ = ["Batch", "EpochSampler", "PairBatches", "epoch_order"]

Batch = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (B, 3, h, w), masks uint8 (B, 1, h, w) in {0, 1}, sample numbers int64 (B,), -1 for padding."""


def epoch_order(key: tuple[int, ...], has_foreground: Sequence[bool], oversample: float) -> list[int]:
    """Return the order of the samples of an epoch, which has as many items as there are samples.

    Args:
        key: (seed, stage, epoch), which alone determines the order.
        has_foreground: For each sample whether its mask has foreground.
        oversample: Smallest share of samples with foreground. If there are too few, they are repeated in place of
            others.

    Returns:
        Sample numbers. The first repetition of sample i has the number i + count, the second i + 2 * count, so that
        each gets its own augmentation.
    """
    count = len(has_foreground)
    order = permutation(key, count)
    with_foreground = [i for i in order if has_foreground[i]]
    wanted = math.ceil(oversample * count)
    if not with_foreground or len(with_foreground) >= wanted:
        return order
    there = len(with_foreground)
    again = [with_foreground[i % there] + i // there * count for i in range(wanted)]
    mixed = again + [i for i in order if not has_foreground[i]][: count - wanted]
    return [mixed[i] for i in permutation((*key, 1), count)]


class EpochSampler(Sampler[int]):
    """The samples of one process. The n-th batches of all processes are together the n-th batch of a single process.

    Args:
        key: (seed, stage).
        has_foreground: For each sample whether its mask has foreground.
        oversample: Smallest share of samples with foreground, as for `epoch_order`.
        batch_size: Number of samples per step, over all processes. An incomplete batch at the end is dropped.
        rank: Number of this process, from 0.
        world: Number of processes.
    """

    def __init__(
        self,
        key: tuple[int, ...],
        has_foreground: Sequence[bool],
        *,
        oversample: float = 0.0,
        batch_size: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.key, self.has_foreground, self.oversample, self.epoch = key, has_foreground, oversample, 0
        self.total = len(has_foreground) // batch_size * batch_size
        self.rank, self.world = rank, world

    def set_epoch(self, epoch: int) -> None:
        """Switch to the order of another epoch; Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total // self.world

    def __iter__(self) -> Iterator[int]:
        order = epoch_order((*self.key, self.epoch), self.has_foreground, self.oversample)
        return iter(order[: self.total][self.rank :: self.world])


class _Batches(Dataset[Batch]):
    """Whole batches in one lookup, from the pairs in memory."""

    def __init__(self, pairs: CachedPairs) -> None:
        self.values = pairs.values

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, numbers: list[int]) -> Batch:
        samples = torch.tensor(numbers)
        planes = self.values[samples.clamp(min=0) % len(self.values)]
        return planes[:, :3], planes[:, 3:], samples


def _identity_collate(batch: Any) -> Any:
    return batch


class PairBatches(L.LightningDataModule):
    """Training and validation batches of one stage.

    Args:
        train: Pairs of the training split.
        validation: Pairs of the validation split.
        key: (seed, stage), on which the order of the samples depends.
        batch_size: Number of images per step over all processes, a multiple of their number.
        oversample: Smallest share of samples with foreground, as for `epoch_order`.
        num_workers: Number of processes that load data.
    """

    def __init__(
        self,
        train: CachedPairs,
        validation: CachedPairs,
        *,
        key: tuple[int, ...],
        batch_size: int,
        oversample: float = 0.0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.key, self.batch_size, self.oversample, self.num_workers = key, batch_size, oversample, num_workers

    def _processes(self) -> tuple[int, int, int]:
        """Number of this process, number of processes, and number of images per step of each."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return rank, world, self.batch_size // world

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        rank, world, each = self._processes()
        has_foreground = (self.train.values[:, 3].flatten(1).amax(1) > 0).tolist()
        sampler = EpochSampler(
            self.key, has_foreground, oversample=self.oversample, batch_size=self.batch_size, rank=rank, world=world
        )
        return self._loader(self.train, sampler, each)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches of this process."""
        rank, world, each = self._processes()
        count = len(self.validation)
        # Each process takes part in each step, with padding where it has no sample left.
        padded = [i if i < count else -1 for i in range(math.ceil(count / world) * world)]
        return self._loader(self.validation, padded[rank::world], each)

    def _loader(self, pairs: CachedPairs, sampler: Sampler[int] | list[int], batch_size: int) -> DataLoader[Batch]:
        return DataLoader(
            _Batches(pairs),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_identity_collate,
            pin_memory=torch.cuda.is_available(),
        )
