"""Folds: the right shares, the same for a unit for ever, independent of everything else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.split import SHARES, TRAIN, folds

IDS = [f"player-{i}" for i in range(60_000)]


def test_shares_are_60_20_20() -> None:
    share = np.bincount(folds(IDS, "game"), minlength=3) / len(IDS)
    spread = 4 * np.sqrt(0.25 / len(IDS))
    assert share == pytest.approx(SHARES, abs=spread)


def test_folds_written_down_once_hold_for_ever() -> None:
    """A champion trained by an earlier release must not meet its training units in a later test."""
    assert folds([f"u{i}" for i in range(12)], "game").tolist() == GOLDEN


GOLDEN = [2, 0, 0, 2, 1, 1, 2, 0, 0, 2, 1, 0]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=30), st.text(max_size=100), st.randoms())
def test_a_units_fold_depends_on_its_id_and_the_salt_alone(ids, salt, random) -> None:
    alone = {unit: int(folds([unit], salt)[0]) for unit in ids}
    shuffled = [*ids, *ids]
    random.shuffle(shuffled)
    assert folds(shuffled, salt).tolist() == [alone[unit] for unit in shuffled]


def test_another_salt_draws_anew() -> None:
    a, b = folds(IDS, "one"), folds(IDS, "two")
    both = np.mean((a == TRAIN) & (b == TRAIN))
    assert both == pytest.approx(0.36, abs=0.01)  # independent


def test_numbers_and_their_text_are_the_same_unit() -> None:
    assert folds(np.arange(100), "s").tolist() == folds([str(i) for i in range(100)], "s").tolist()
    assert (
        folds(pd.Series(["a", "b"], index=[7, 3]), "s").tolist() == folds(["a", "b"], "s").tolist()
    )


def test_no_rows() -> None:
    assert folds([], "s").shape == (0,)
