"""Always-valid intervals: whoever looks after every row still errs at most as often as promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from models.metrics.experiments import effect_sequence, mean_sequence

ROWS = 3000


def trial(rng: np.random.Generator, kind: str, effect: float = 0.0, share: float = 0.5):
    treated = (rng.random(ROWS) < share).astype(int)
    if kind == "binary":
        y = (rng.random(ROWS) < 0.1 + effect * treated).astype(float)
    elif kind == "heavy":
        y = rng.lognormal(3, 1, ROWS) + effect * treated
    else:
        y = rng.normal(100, 1, ROWS) + effect * treated
    return y, treated, np.where(treated == 1, share, 1 - share)


@pytest.mark.parametrize(
    ("kind", "share"), [("normal", 0.5), ("normal", 0.1), ("binary", 0.5), ("heavy", 0.3)]
)
def test_peeking_at_every_row_errs_less_than_5_times_in_100(kind: str, share: float) -> None:
    wrong, fixed = 0, 0
    for seed in range(600):
        y, treated, p = trial(np.random.default_rng(seed), kind, share=share)
        found = effect_sequence(y, treated, p, best_at=ROWS)
        wrong += found.first_without(0.0) is not None
        if seed < 200:  # what an interval for one look does to people who look at all
            fixed += naive_peek(y, treated)
    assert wrong / 600 <= 0.05
    assert fixed / 200 > 0.25


def naive_peek(y: np.ndarray, treated: np.ndarray) -> bool:
    rows = np.arange(100, ROWS)
    sums = []
    for group in (treated == 1, treated == 0):
        n = np.cumsum(group)[rows]
        mean = np.cumsum(np.where(group, y, 0))[rows] / n
        square = np.cumsum(np.where(group, y**2, 0))[rows] / n
        sums.append((mean, np.maximum(square - mean**2, 1e-12) / n))
    (one, spread), (zero, spread_0) = sums
    return bool((np.abs(one - zero) > 1.96 * np.sqrt(spread + spread_0)).any())


def test_an_effect_is_found_and_held() -> None:
    held, found = 0, 0
    for seed in range(200):
        y, treated, p = trial(np.random.default_rng(seed), "normal", effect=0.2)
        sequence = effect_sequence(y, treated, p, best_at=ROWS)
        held += bool((sequence.low <= 0.2).all() and (sequence.high >= 0.2).all())
        found += sequence.first_without(0.0) is not None
    assert held / 200 >= 0.95
    assert found / 200 > 0.95  # five standard errors at the last row


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(2, 60), best=st.integers(1, 500))
def test_it_is_robbins_mixture(seed: int, rows: int, best: int) -> None:
    """The limits are where the mixture's martingale reaches 1 / alpha, with the running deviation."""
    values = np.random.default_rng(seed).normal(5, 2, rows)
    found = mean_sequence(values, best_at=best, first=2, confidence=0.9)
    planned = 5.0
    for _ in range(60):  # where the width's derivative is 0
        planned = np.log(planned + 1) - 2 * np.log(0.1)
    for t in range(2, rows + 1):
        high, mean, spread = found.high[t - 1], values[:t].mean(), values[:t].var()
        if np.isinf(high):
            continue
        v = t * planned / best
        z = (high - mean) * np.sqrt(t / spread)
        wealth = np.exp(z**2 / 2 * v / (v + 1)) / np.sqrt(v + 1)
        assert wealth == pytest.approx(10, rel=1e-3)


def test_narrowest_at_the_planned_row_and_half_as_wide_again_as_for_one_look() -> None:
    values = np.random.default_rng(0).normal(size=50_000)
    widths = {}
    for best in (100, 2000, 50_000):
        found = mean_sequence(values, best_at=best)
        widths[best] = found.high - found.low
    for best, row in ((100, 99), (2000, 1999), (50_000, 49_999)):
        assert widths[best][row] == min(each[row] for each in widths.values())
        one_look = 2 * 1.96 * values[: row + 1].std() / np.sqrt(row + 1)
        assert widths[best][row] / one_look == pytest.approx(1.55, abs=0.01)


def test_a_prediction_from_before_narrows_it() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(50, 3, ROWS)
    treated = rng.integers(0, 2, ROWS)
    y = before + rng.normal(0, 1, ROWS) + 0.5 * treated
    half = np.full(ROWS, 0.5)
    plain = effect_sequence(y, treated, half, best_at=ROWS)
    known = effect_sequence(y, treated, half, best_at=ROWS, prediction=before)
    assert 0.5 in known.last
    assert known.last.high - known.last.low < 0.4 * (plain.last.high - plain.last.low)


def test_each_row_uses_only_what_came_before() -> None:
    y, treated, p = trial(np.random.default_rng(2), "heavy")
    whole = effect_sequence(y, treated, p, best_at=ROWS)
    part = effect_sequence(y[:700], treated[:700], p[:700], best_at=ROWS)
    np.testing.assert_allclose(part.low, whole.low[:700])
    shifted = effect_sequence(y + 1e6, treated, p, best_at=ROWS)
    np.testing.assert_allclose(shifted.last.low, whole.last.low, rtol=1e-4)


def test_too_early_and_never_varying_outcomes_have_no_interval() -> None:
    rng = np.random.default_rng(3)
    rare = (rng.random(ROWS) < 0.002).astype(float)
    found = mean_sequence(rare, best_at=ROWS)
    tenth = np.flatnonzero(rare)[9] if rare.sum() > 9 else ROWS
    assert np.isinf(found.high[: tenth - 1]).all()
    half = np.full(200, 0.5)
    flat = effect_sequence(np.ones(200), rng.integers(0, 2, 200), half, best_at=200)
    assert flat.last.estimate == pytest.approx(0)
    assert np.isinf(flat.last.high)
    assert flat.first_without(0.0) is None
    alone = effect_sequence(np.ones(200), np.zeros(200), half, best_at=200)
    assert alone.first_without(0.0) is None  # all control: m_0 alone is known


def test_bad_input_is_refused() -> None:
    y, treated, p = trial(np.random.default_rng(4), "normal")
    for change, said in (
        ({"best_at": 0}, "best_at=0"),
        ({"first": 2}, "at least 4"),
        ({"first": ROWS}, "first=3000 of 3000 rows"),
        ({"y": np.append(y[:-1], np.nan)}, "y has 1 NaN"),
        ({"propensity": None}, "propensity is missing"),
        ({"propensity": np.zeros(ROWS)}, "propensity runs from 0"),
        ({"prediction": y[:10]}, "prediction has shape"),
        ({"confidence": 1.0}, "isn't a share"),
    ):
        kept = {"y": y, "treatment": treated, "propensity": p, "best_at": ROWS, **change}
        with pytest.raises(DataError, match=said):
            effect_sequence(**kept)
    with pytest.raises(DataError, match="best_at=0 and first=100"):
        mean_sequence(y, best_at=0)
    with pytest.raises(DataError, match="first=100 of 10 rows"):
        effect_sequence(y[:10], treated[:10], p[:10], best_at=ROWS)
