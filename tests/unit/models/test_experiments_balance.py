"""Covariate balance: p-values are uniform under a true draw, and tiny where the arms differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from campaigns.errors import DataError
from models.metrics.experiments import covariate_balance


def draw(rng: np.random.Generator, rows: int, design: str):
    """Five covariates, three arms; stratified: the first covariate moves the propensities."""
    x = rng.normal(size=(rows, 5)) @ rng.normal(size=(5, 5))
    x[:, 4] = x[:, 4] > 0.5
    p = np.tile([0.5, 0.3, 0.2], (rows, 1))
    if design == "stratified":
        p[x[:, 0] > 0] = [0.3, 0.3, 0.4]
    arm = (rng.random((rows, 1)) > p.cumsum(axis=1)).sum(axis=1)
    return x, arm, p[np.arange(rows), arm]


@pytest.mark.parametrize(("design", "rows"), [("constant", 150), ("stratified", 1500)])
def test_p_values_of_true_draws_are_uniform(design: str, rows: int) -> None:
    p_values = []
    for seed in range(400):
        x, arm, propensity = draw(np.random.default_rng(seed), rows, design)
        found = covariate_balance(x, arm, propensity=propensity)
        assert found.dimensions == 10
        p_values.append(found.p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_arms_that_differ_are_found_and_named() -> None:
    rng = np.random.default_rng(1)
    x, arm, propensity = draw(rng, 4000, "constant")
    x[:, 2] += 0.4 * x[:, 2].std() * (arm == 2)
    found = covariate_balance(x, arm, propensity=propensity)
    assert found.p_value < 1e-6
    assert np.unravel_index(np.abs(found.differences).argmax(), (2, 5)) == (1, 2)
    assert found.differences[1, 2] == found.worst == pytest.approx(0.4, abs=0.06)
    x, arm, propensity = draw(rng, 4000, "stratified")
    assert covariate_balance(x, arm).p_value < 1e-6  # blind to the strata
    assert covariate_balance(x, arm, propensity=propensity).p_value > 0.001


def test_differences_are_their_definition() -> None:
    x, arm, propensity = draw(np.random.default_rng(2), 60, "stratified")
    found = covariate_balance(x, arm, propensity=propensity)
    for row, a in enumerate((1, 2)):
        for f in range(5):
            moments = []
            for group in (a, 0):
                w = [1 / propensity[i] for i in range(60) if arm[i] == group]
                v = [x[i, f] for i in range(60) if arm[i] == group]
                mean = sum(p * q for p, q in zip(w, v)) / sum(w)
                moments.append((mean, sum(p * (q - mean) ** 2 for p, q in zip(w, v)) / sum(w)))
            (one, spread), (zero, spread_0) = moments
            wanted = (one - zero) / ((spread + spread_0) / 2) ** 0.5
            assert found.differences[row, f] == pytest.approx(wanted)


def test_repeated_and_constant_covariates_change_nothing() -> None:
    x, arm, propensity = draw(np.random.default_rng(3), 500, "constant")
    once = covariate_balance(x, arm, propensity=propensity)
    more = np.column_stack([x, 3 * x[:, 0] - 1, np.full(500, 7.0)])
    twice = covariate_balance(more, arm, propensity=propensity)
    assert (twice.p_value, twice.dimensions) == (pytest.approx(once.p_value), 10)
    assert np.isnan(twice.differences[:, 6]).all()
    order = np.random.default_rng(0).permutation(500)
    again = covariate_balance(x[order], arm[order], propensity=propensity[order])
    assert again.p_value == pytest.approx(once.p_value)


def test_few_rows_have_differences_but_no_joint_test() -> None:
    rng = np.random.default_rng(4)
    ten = covariate_balance(rng.normal(size=(10, 9)), [0, 1] * 5)
    assert np.isnan(ten.p_value)
    assert np.isfinite(ten.differences).all()
    assert covariate_balance(rng.normal(size=(10, 2)), [0, 1] * 5).p_value > 0.001
    for rows, told in ((44, False), (46, True)):  # five a direction
        p_value = covariate_balance(rng.normal(size=(rows, 9)), [0, 1] * (rows // 2)).p_value
        assert np.isfinite(p_value) == told
    flat = covariate_balance(np.ones((10, 2)), [0, 1] * 5)
    assert (flat.worst, flat.dimensions) == (0.0, 0)
    assert covariate_balance(rng.normal(size=(9, 1)), [0, 1] * 4 + [2]).arms.tolist() == [1]


def test_bad_input_is_refused() -> None:
    x = np.ones((10, 2))
    for given, arm, said in (
        (x, np.zeros(10), r"rows by arm are \[10\]"),
        (x, np.ones(10), r"rows by arm are \[0, 10\]"),
        (np.full((10, 2), np.nan), [0, 1] * 5, "x has 20 NaN"),
    ):
        with pytest.raises(DataError, match=said):
            covariate_balance(given, arm)
