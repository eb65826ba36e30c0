"""Buckets: as large as designed, sticky, and nothing to do with any other draw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from campaigns.errors import DataError
from serving.policy.buckets import buckets
from serving.policy.exploration import explore, held_out
from serving.policy.hashing import ARM, COIN, uniform

IDS = np.array([f"player-{i}" for i in range(40_000)], dtype=object)
SHARES = [0.1, 0.2, 0.3, 0.4]
KEY = {"salt": "spring", "experiment": "models"}


def related(one: np.ndarray, other: np.ndarray) -> float:
    """P-value of a chi-square test of independence."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    return float(stats.chi2_contingency(table).pvalue)


@pytest.mark.parametrize("salt", ["a", "b", "c", "d"])
def test_shares_are_hit(salt: str) -> None:
    found = buckets(IDS, SHARES, salt=salt, experiment="models")
    counts = np.bincount(found, minlength=4)
    assert stats.chisquare(counts, np.array(SHARES) * len(IDS)).pvalue > 1e-4


def test_a_unit_keeps_its_bucket_whoever_comes_with_it() -> None:
    found = buckets(IDS, SHARES, **KEY)
    assert (buckets(IDS[::-3], SHARES, **KEY) == found[::-3]).all()
    whole = np.arange(1000)
    text = np.array([str(i) for i in whole], dtype=object)
    assert (buckets(whole, SHARES, **KEY) == buckets(text, SHARES, **KEY)).all()


def test_another_salt_and_another_experiment_draw_independently() -> None:
    found = buckets(IDS, SHARES, **KEY)
    for other in ({**KEY, "salt": "autumn"}, {**KEY, "experiment": "prices"}):
        again = buckets(IDS, SHARES, **other)
        assert (again != found).mean() > 0.5
        assert related(found, again) > 1e-4


def test_buckets_say_nothing_about_exploration_even_with_its_salt() -> None:
    found = buckets(IDS, SHARES, **KEY)
    held = held_out(IDS, salt="spring", holdout=0.2)
    eligible = np.ones((len(IDS), 3), dtype=bool)
    draw = explore(np.zeros(len(IDS), dtype=int), eligible, 0.3, IDS, "models", "spring")
    for other in (held, draw.explored, draw.arm):
        assert related(found, other.astype(int)) > 1e-4
    for purpose in (COIN, ARM):
        coin = uniform(IDS, salt="spring", epoch="models", purpose=purpose)
        assert related(found, (coin * 10).astype(int)) > 1e-4


@pytest.mark.parametrize("shares", [[0.5, 0.4], [1.2, -0.2], [0.5, np.nan], []])
def test_shares_that_are_none_are_refused(shares: list[float]) -> None:
    with pytest.raises(DataError):
        buckets(["a"], shares, **KEY)
