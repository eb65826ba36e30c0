"""Lots: even, the same for the same unit, whatever column it stands in."""

from __future__ import annotations

import numpy as np
import pytest

from campaigns.errors import DataError
from serving.policy.lots import BITS, lots


@pytest.mark.parametrize(
    "units",
    [np.arange(50_000), np.array([f"unit-{row}" for row in range(50_000)])],
    ids=["numbers", "words"],
)
def test_lots_are_even_and_differ(units):
    found = lots(units) / 2**BITS
    assert len(np.unique(found)) == len(units)
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert ((counts - 2500) ** 2 / 2500).sum() < 50  # chi squared with 19: 1e-4 of the time
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02


def test_a_lot_is_the_unit_s_own():
    words = ["a", "player 7", "", "ä", "a much longer name than the others"]
    together = lots(np.array(words))
    for word, lot in zip(words, together):
        assert lots(np.array([word]))[0] == lot
        assert lots(np.array([word], dtype=object))[0] == lot
    assert lots(np.array([3, 5], dtype=np.int32)).tolist() == lots(np.array([3, 5])).tolist()
    assert lots(np.array([0]))[0] == 0xE220A8397B1D  # splitmix64's first number from seed 0
    assert len(lots(np.array([], dtype=np.int64))) == 0


@pytest.mark.parametrize("units", [np.array([1.5]), np.array(["a", 1], dtype=object)])
def test_other_ids_are_refused(units):
    with pytest.raises(DataError, match="words or whole numbers"):
        lots(units)
