"""Batches: which samples an epoch shows, in which order, and how several processes share them."""

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
"""images uint8 (B, 3, h, w), masks uint8 (B, 1, h, w) in {0, 1}, sample numbers int64 (B,), -1 for a filler."""


def epoch_order(key: tuple[int, ...], shows: Sequence[bool], oversample: float) -> list[int]:
    """The samples of one epoch, as many as there are.

    Args:
        key: (seed, stage, epoch); nothing else decides.
        shows: for each sample whether it has foreground.
        oversample: least share of samples with foreground; where they are too few, they are shown again in place of
            others.

    Returns:
        Sample numbers. The second showing of sample i is i + count, the third i + 2 count, so that each is disturbed
        in its own way.
    """
    count = len(shows)
    order = permutation(key, count)
    with_foreground = [i for i in order if shows[i]]
    wanted = math.ceil(oversample * count)
    if not with_foreground or len(with_foreground) >= wanted:
        return order
    there = len(with_foreground)
    again = [with_foreground[i % there] + i // there * count for i in range(wanted)]
    mixed = again + [i for i in order if not shows[i]][: count - wanted]
    return [mixed[i] for i in permutation((*key, 1), count)]


class EpochSampler(Sampler[int]):
    """One process's share of each epoch's order. Together the processes' n-th batches are the n-th batch of one.

    Args:
        key: (seed, stage).
        shows: as for `epoch_order`.
        oversample: as for `epoch_order`.
        batch_size: over all processes; what is left at the end of an epoch is not shown.
        rank, world: this process and how many there are.
    """

    def __init__(
        self,
        key: tuple[int, ...],
        shows: Sequence[bool],
        *,
        oversample: float = 0.0,
        batch_size: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.key, self.shows, self.oversample, self.epoch = key, shows, oversample, 0
        self.total = len(shows) // batch_size * batch_size
        self.rank, self.world = rank, world

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total // self.world

    def __iter__(self) -> Iterator[int]:
        order = epoch_order((*self.key, self.epoch), self.shows, self.oversample)
        return iter(order[: self.total][self.rank :: self.world])


class _Batches(Dataset[Batch]):
    """A whole batch in one look-up, from what is in memory."""

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
        train, validation: the sets.
        key: (seed, stage), of the order.
        batch_size: over all processes, a multiple of their number.
        oversample: see `epoch_order`.
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
        """This process, how many there are, and the images of one in a step."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return rank, world, self.batch_size // world

    def train_dataloader(self) -> DataLoader[Batch]:
        rank, world, each = self._processes()
        shows = (self.train.values[:, 3].flatten(1).amax(1) > 0).tolist()
        sampler = EpochSampler(
            self.key, shows, oversample=self.oversample, batch_size=self.batch_size, rank=rank, world=world
        )
        return self._loader(self.train, sampler, each)

    def val_dataloader(self) -> DataLoader[Batch]:
        rank, world, each = self._processes()
        count = len(self.validation)
        # Every process takes part in every step, with fillers where there is nothing left for it.
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
