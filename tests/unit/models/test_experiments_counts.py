"""Sequential sample ratio: seldom wrong however often it is looked at, and soon right."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from campaigns.errors import DataError
from models.metrics.experiments import counts, sequential_counts


def bayes_factor(counts: np.ndarray, p: np.ndarray, concentration: float) -> float:
    """log of the multinomial Bayes factor of Dirichlet(c p) against p."""
    alpha, seen = concentration * p, p > 0
    if counts[~seen].any():
        return np.inf
    alpha, counts, p = alpha[seen], counts[seen], p[seen]
    return float(
        gammaln(alpha.sum())
        - gammaln(alpha.sum() + counts.sum())
        + (gammaln(alpha + counts) - gammaln(alpha)).sum()
        - (counts * np.log(p)).sum()
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), arms=st.integers(2, 5), concentration=st.floats(1, 1000))
def test_with_a_constant_design_it_is_the_multinomial_bayes_factor(
    seed: int, arms: int, concentration: float
) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([3] * arms)
    p = np.maximum(p, 0.01) / np.maximum(p, 0.01).sum()
    arm = rng.choice(arms, 80, p=np.roll(p, 1))
    found = sequential_counts(arm, p, concentration=concentration).p_values
    best = 0.0
    for n in range(80):
        best = max(best, bayes_factor(np.bincount(arm[: n + 1], minlength=arms), p, concentration))
        assert found[n] == pytest.approx(np.exp(-best))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_a_changing_design_it_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.maximum(rng.dirichlet([1, 1, 1], 40), 0.01)
    p /= p.sum(axis=1, keepdims=True)
    arm = rng.integers(0, 3, 40)
    came, promised = np.zeros(3), np.zeros(3)
    wealth = best = 1.0
    for t in range(40):
        w = (100 * p[0] + came) / (100 * p[0] + promised)
        wealth *= w[arm[t]] / (p[t] @ w)
        best = max(best, wealth)
        came[arm[t]] += 1
        promised += p[t]
    assert sequential_counts(arm, p).p_value == pytest.approx(1 / best)
    constant = np.tile(p[0], (40, 1))
    np.testing.assert_allclose(
        sequential_counts(arm, constant).p_values, sequential_counts(arm, p[0]).p_values
    )


@pytest.mark.parametrize("design", ["constant", "changing"])
def test_who_looks_after_every_row_still_errs_less_often_than_promised(design: str) -> None:
    wrong = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        p = np.tile([0.5, 0.3, 0.2], (2000, 1))
        if design == "changing":
            p[rng.random(2000) < 0.5] = [0.2, 0.2, 0.6]
        arm = (rng.random((2000, 1)) > p.cumsum(axis=1)).sum(axis=1)
        wrong += sequential_counts(arm, p).p_value < 0.05
    assert wrong / 400 <= 0.05


def test_a_mismatch_is_found_and_when() -> None:
    rng = np.random.default_rng(0)
    sound, broken = rng.integers(0, 2, 20_000), (rng.random(20_000) < 0.55).astype(int)
    test = sequential_counts(np.append(sound, broken), [0.5, 0.5])
    assert 20_000 < test.first_below(0.001) < 30_000
    assert sequential_counts(sound, [0.5, 0.5]).first_below(0.001) is None
    assert (np.diff(test.p_values) <= 0).all()


def test_an_arm_that_had_no_chance_is_proof() -> None:
    test = sequential_counts([0, 1, 0, 2, 0], [0.5, 0.5, 0.0])
    assert test.p_values[2] == 1.0
    assert test.p_values[3:].tolist() == [0.0, 0.0]


def test_a_log_of_control_alone_and_ten_units() -> None:
    assert sequential_counts(np.zeros(200), [0.5, 0.5]).p_value < 1e-10
    assert sequential_counts(np.zeros(200), [1.0, 0.0]).p_value == 1.0
    assert sequential_counts([0, 1] * 5, [0.5, 0.5]).p_value == 1.0


def test_bad_input_is_refused() -> None:
    for arm, p, more, said in (
        ([0, 1], [0.5, 0.4], {}, "sum to 0.9"),
        ([0, 1], [1.5, -0.5], {}, "down to -0.5"),
        ([0, 2], [0.5, 0.5], {}, "arm 2 was given"),
        ([0, np.nan], [0.5, 0.5], {}, "arm has 1 NaN"),
        ([0, 1], [[0.5, 0.5]], {}, "probability has shape"),
        ([0, 1], [0.5, 0.5], {"concentration": 0}, "above 0"),
    ):
        with pytest.raises(DataError, match=said):
            sequential_counts(arm, p, **more)


def test_the_example_in_its_description_is_true() -> None:
    assert doctest.testmod(counts) == doctest.TestResults(failed=0, attempted=2)
