"""Rows that fit in memory as shuffled batches, the same for any number of workers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from campaigns.errors import DataError
from models.data import Batch


@dataclass(frozen=True)
class InMemoryBatches:
    """Shuffled batches of rows that fit in memory: ``batches(epoch)``.

    An epoch's order depends on the seed and the epoch alone, so every worker draws the same one and
    takes its own part of each batch. All rows are used: the epoch is cut into ceil(N / batch_size)
    batches of nearly equal size. Where the workers' parts differ in size their weights make up for
    it, so that the workers' mean gradient is that of the whole batch.

    Args:
        rows: All rows, on any device.
        batch_size: Most rows a step, all workers together.
        seed: Of the order.
        rank, world_size: Which worker this is, of how many.
        shuffle: Off keeps the rows' own order.
    """

    rows: Batch
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise DataError(f"rank {self.rank} of {self.world_size} workers: it must be less")
        if len(self.rows) // max(self.steps, 1) < self.world_size:
            raise DataError(
                f"{len(self.rows)} rows in batches of {self.batch_size} "
                f"leave some of {self.world_size} workers without rows"
            )

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.rows) / self.batch_size)

    def __call__(self, epoch: int) -> Epoch:
        return Epoch(self, epoch)


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch; it knows their number."""

    source: InMemoryBatches
    epoch: int

    def __len__(self) -> int:
        return self.source.steps

    def __iter__(self) -> Iterator[Batch]:
        source, rows = self.source, self.source.rows
        order = torch.arange(len(rows))
        if source.shuffle:
            mixed = np.random.SeedSequence([source.seed, self.epoch]).generate_state(1)
            generator = torch.Generator().manual_seed(int(mixed[0]))
            order = torch.randperm(len(rows), generator=generator)
        for whole in order.to(rows.arm.device).tensor_split(source.steps):
            part = whole.tensor_split(source.world_size)[source.rank]
            batch = rows.select(part)
            share = len(part) * source.world_size / len(whole)
            yield batch if share == 1.0 else replace(batch, weight=batch.weight * share)
