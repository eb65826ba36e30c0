"""Training rows that stream through Ray Data, for frames that don't fit in memory.

The same rows as :func:`models.dataset.load` gives, encoded by Ray tasks while the net trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from campaigns.pieces import piece_rows
from campaigns.storage import filesystem
from models.data import Batch
from models.dataset import Recipe
from models.split import TRAIN


def stream(source: str | Path, recipe: Recipe, fold: int = TRAIN) -> Any:
    """A fold's rows as a lazy Ray dataset, one column a field of :class:`Batch`.

    Needs a running Ray. Blocks are encoded by Ray tasks while the net trains.
    """
    import ray

    def encode(chunk: pd.DataFrame) -> dict[str, np.ndarray]:
        (rows,) = recipe.rows_of(chunk, fold)
        return {name: value.numpy() for name, value in vars(recipe.batch(rows)).items()}

    rows = max(1, piece_rows(len(recipe.columns)) // 4)
    ray.data.DataContext.get_current().enable_progress_bars = False
    found, path = filesystem(source)
    data = ray.data.read_parquet(path, filesystem=found, file_extensions=None)
    data = data.select_columns(recipe.columns)
    return data.map_batches(encode, batch_format="pandas", batch_size=rows)


@dataclass(frozen=True)
class StreamedBatches:
    """Batches of an epoch from a Ray data iterator, shuffled within a buffer: ``batches(epoch)``.

    Args:
        data: A Ray ``Dataset`` or ``DataIterator`` of :func:`stream` (a worker's shard).
        batch_size: Rows a step of this worker.
        seed: Of the shuffle.
        buffer: Rows among which the next batch is drawn; 0 keeps the order.
    """

    data: Any
    batch_size: int
    seed: int = 0
    buffer: int = 65_536

    def __call__(self, epoch: int) -> Iterator[Batch]:
        shuffle: dict[str, int] = {}
        if self.buffer:
            mixed = np.random.SeedSequence([self.seed, epoch]).generate_state(1)
            shuffle = {
                "local_shuffle_buffer_size": max(self.buffer, self.batch_size),
                "local_shuffle_seed": int(mixed[0]),
            }
        batches = self.data.iter_torch_batches(batch_size=self.batch_size, **shuffle)
        return (Batch(**columns) for columns in batches)
