"""Rows that come in pieces are those of one table, and are held once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data import Batch
from models.growing import GrowingBatch


def rows(count: int, numeric: int, categories: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch.of(
        rng.normal(size=(count, numeric)),
        rng.integers(0, 5, (count, categories)),
        rng.integers(0, 3, count),
        rng.normal(size=(count, 2)),
        unit=rng.integers(-(2**62), 2**62, count),
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 3))
def test_pieces_become_the_rows_that_they_are_of(
    counts: list[int], numeric: int, categories: int
) -> None:
    whole = rows(sum(counts), numeric, categories)
    pieces = torch.arange(len(whole)).split(counts)
    growing = GrowingBatch()
    for piece in pieces:
        growing.add(whole.select(piece))
    found = growing.batch()
    for name, values in vars(whole).items():
        assert torch.equal(getattr(found, name), values), name
        assert getattr(found, name).dtype == values.dtype, name


def test_rows_are_held_once() -> None:
    piece, pieces = rows(1_000, 50, 2), 100
    size = sum(values.nbytes for values in vars(piece).values())
    growing = GrowingBatch()
    tracemalloc.start()
    for _ in range(pieces):
        growing.add(piece)
    found = growing.batch()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == pieces * len(piece)
    assert most == pytest.approx(pieces * size, rel=0.15)


def test_rows_can_be_changed_as_other_tensors_can() -> None:
    growing = GrowingBatch()
    growing.add(rows(3, 2, 1))
    found = growing.batch()
    found.x_num += 1.0
    assert torch.equal(found.x_num, rows(3, 2, 1).x_num + 1.0)
