"""CUPED: the same effect, a narrower interval, and the coverage that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics.experiments import cuped_effect


def trial(rng: np.random.Generator, rows: int, share: float = 0.5, varying: bool = False):
    """An effect of 0.3 + 0.2 x; x explains 64% of the outcome's variance without treatment."""
    x = rng.normal(size=rows)
    chance = np.where(x > 0, 0.7, 0.3) if varying else np.full(rows, share)
    treated = (rng.random(rows) < chance).astype(int)
    y = 0.8 * x + rng.normal(0, 0.6, rows) + treated * (0.3 + 0.2 * x)
    return y, treated, x, np.where(treated == 1, chance, 1 - chance)


@pytest.mark.parametrize(("rows", "share"), [(24, 0.5), (400, 0.2)])
def test_intervals_cover_the_truth(rows: int, share: float) -> None:
    inside, plain = [], []
    for seed in range(1500):
        y, treated, x, _ = trial(np.random.default_rng(seed), rows, share)
        found = cuped_effect(y, treated, x)
        inside.append(0.3 in found.interval)
        plain.append(0.3 in found.unadjusted)
    assert 0.93 <= np.mean(inside) <= 0.97
    assert 0.93 <= np.mean(plain) <= 0.97


def test_it_removes_the_share_that_the_covariate_explains() -> None:
    y, treated, x, propensity = trial(np.random.default_rng(0), 100_000)
    found = cuped_effect(y, treated, x, propensity=propensity)
    # per arm 1: Var(y) = 1 + 0.36 of which 1 is x's; arm 0: 0.64 + 0.36; left is 0.36 and the effect's own
    left = 0.36 / 0.5 + 0.36 / 0.5 + 0.2**2
    assert found.variance_reduction == pytest.approx(1 - left / (1.36 / 0.5 + 1.0 / 0.5), abs=0.01)
    assert found.interval.estimate == pytest.approx(0.3, abs=0.015)
    nothing = cuped_effect(y, treated, np.random.default_rng(1).normal(size=(100_000, 3)))
    assert nothing.variance_reduction == pytest.approx(0, abs=0.002)


def test_propensities_that_follow_the_covariate() -> None:
    y, treated, x, propensity = trial(np.random.default_rng(2), 20_000, varying=True)
    found = cuped_effect(y, treated, x, propensity=propensity)
    assert 0.3 in found.interval
    assert 0.3 in found.unadjusted
    assert cuped_effect(y, treated, x).unadjusted.low > 0.5  # blind to them


def test_it_is_the_difference_of_intercepts() -> None:
    y, treated, x, propensity = trial(np.random.default_rng(3), 300, varying=True)
    x = np.column_stack([x, x**2])
    intercepts = []
    for a in (1, 0):
        rows = treated == a
        design = np.column_stack([np.ones(rows.sum()), x[rows] - x.mean(axis=0)])
        w = np.diag(1 / propensity[rows])
        intercepts.append(np.linalg.solve(design.T @ w @ design, design.T @ w @ y[rows])[0])
    found = cuped_effect(y, treated, x, propensity=propensity)
    assert found.interval.estimate == pytest.approx(intercepts[0] - intercepts[1])
    swapped = cuped_effect(y, 1 - treated, x, propensity=propensity)
    assert swapped.interval.high == pytest.approx(-found.interval.low)
    shifted = cuped_effect(5 + 2 * y, treated, 9 - 4 * x, propensity=propensity)
    assert shifted.interval.low == pytest.approx(2 * found.interval.low)
    repeated = cuped_effect(y, treated, np.column_stack([x, x]), propensity=propensity)
    assert repeated.interval.low == pytest.approx(found.interval.low)


def test_without_covariates_that_vary_it_is_welch_s_interval() -> None:
    from scipy import stats

    rng = np.random.default_rng(4)
    one, zero = rng.normal(1, 3, 8), rng.normal(0, 1, 30)
    found = cuped_effect(np.append(one, zero), np.repeat([1, 0], [8, 30]), np.ones(38))
    welch = stats.ttest_ind(one, zero, equal_var=False).confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((welch.low, welch.high))
    assert found.unadjusted == found.interval


def test_ten_units_and_a_constant_outcome() -> None:
    rng = np.random.default_rng(5)
    found = cuped_effect(rng.normal(size=10), [0, 1] * 5, rng.normal(size=10))
    assert np.isfinite([found.interval.low, found.interval.high]).all()
    flat = cuped_effect(np.full(10, 3.0), [0, 1] * 5, rng.normal(size=10))
    assert flat.interval.estimate == pytest.approx(0, abs=1e-12)
    assert flat.interval.high - flat.interval.low < 1e-12


def test_bad_input_is_refused() -> None:
    y, treated, x, _ = trial(np.random.default_rng(6), 50)
    for change, said in (
        ({"treatment": np.ones(50)}, "50 treated and 0 control"),
        ({"treatment": np.zeros(50)}, "0 treated and 50 control"),
        ({"covariates": np.full(50, np.nan)}, "covariates has 50 NaN"),
        ({"covariates": x[:40]}, "covariates has shape"),
        ({"covariates": np.ones((50, 40))}, "each arm needs at least 42"),
        ({"treatment": treated + 1}, "0 .control. to 1"),
        ({"propensity": np.zeros(50)}, "propensity runs from 0"),
        ({"confidence": 2.0}, "isn't a share"),
    ):
        with pytest.raises(DataError, match=said):
            cuped_effect(**{"y": y, "treatment": treated, "covariates": x, **change})
