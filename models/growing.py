"""Rows that come piece by piece, in memory that grows where it lies."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from models.data import Batch


class GrowingBatch:
    """Batches one after the other, as one.

    Pieces that are kept and then joined take twice the memory of the rows. A buffer for each field
    takes one eighth more than the rows at most: the system moves large buffers that grow by their
    page tables, not byte by byte, and lends no page before something is written to it.
    """

    def __init__(self) -> None:
        self._buffers = {field.name: bytearray() for field in fields(Batch)}
        self._last: Batch | None = None
        self._rows = 0

    def add(self, batch: Batch) -> None:
        """More rows, on the CPU; their fields are as wide and of the types as those before."""
        for name, buffer in self._buffers.items():
            buffer += getattr(batch, name).numpy().tobytes()
        self._last = batch
        self._rows += len(batch)

    def batch(self) -> Batch:
        """All rows, in the order that they came in; at least one piece must have come, if empty."""
        assert self._last is not None
        return Batch(
            *(
                self._whole(buffer, getattr(self._last, name))
                for name, buffer in self._buffers.items()
            )
        )

    def _whole(self, buffer: bytearray, like: Tensor) -> Tensor:
        sizes = (self._rows, *like.shape[1:])
        if not buffer:  # of no rows, or of no columns
            return torch.empty(sizes, dtype=like.dtype)
        return torch.frombuffer(buffer, dtype=like.dtype).view(sizes)
