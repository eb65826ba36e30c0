"""Power: an effect of the size that is promised is found as often as is promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from campaigns.errors import DataError
from models.metrics.experiments import (
    achieved_power,
    binary_variance,
    detectable_effect,
    needed_rows,
)


def found(treated, control, alpha=0.05):
    """Share of simulated trials [S, n] whose two-sided test finds an effect."""
    error = np.sqrt(treated.var(axis=1) / treated.shape[1] + control.var(axis=1) / control.shape[1])
    z = (treated.mean(axis=1) - control.mean(axis=1)) / error
    return (2 * norm.sf(np.abs(z)) < alpha).mean()


@pytest.mark.parametrize("power", [0.5, 0.8, 0.9])
def test_a_continuous_effect_of_that_size_is_found_that_often(power):
    rng = np.random.default_rng(0)
    effect = detectable_effect(300, 500, 4.0, power=power)
    treated = rng.normal(effect, 2, (4000, 300))
    assert found(treated, rng.normal(0, 2, (4000, 500))) == pytest.approx(power, abs=0.025)


def test_a_binary_effect_of_that_size_is_found_that_often():
    rng = np.random.default_rng(1)
    effect = detectable_effect(4000, 4000, binary_variance(0.4))
    treated = rng.binomial(4000, 0.4 + effect, 20_000) / 4000
    control = rng.binomial(4000, 0.4, 20_000) / 4000
    error = np.sqrt((treated * (1 - treated) + control * (1 - control)) / 4000)
    share = (2 * norm.sf(np.abs(treated - control) / error) < 0.05).mean()
    assert share == pytest.approx(0.8, abs=0.02)


def test_known_value():
    # the textbook's 16 s^2 / d^2 units an arm, to be exact 15.7
    assert detectable_effect(1570, 1570, 1.0) == pytest.approx(0.1, rel=1e-3)
    assert np.isinf(detectable_effect(0, 100, 1.0))
    assert detectable_effect([100, 400], 10**12, 1.0)[0] == pytest.approx(
        2 * detectable_effect([100, 400], 10**12, 1.0)[1]
    )


@given(
    effect=st.floats(0.01, 1.0),
    variance=st.floats(0.1, 10.0),
    share=st.floats(0.05, 0.95),
    power=st.floats(0.5, 0.99),
)
def test_effect_rows_and_power_are_one_equation(effect, variance, share, power):
    rows = needed_rows(effect, variance, share=share, power=power)
    arms = rows * share, rows * (1 - share)
    assert detectable_effect(*arms, variance, power=power) <= effect * (1 + 1e-9)
    fewer = (rows - 1) * share, (rows - 1) * (1 - share)
    assert rows < 3 or detectable_effect(*fewer, variance, power=power) > effect * (1 - 1e-9)
    found = achieved_power(-effect, *arms, variance)
    assert found >= power - 1e-9
    smallest = detectable_effect(*arms, variance, power=power)
    assert achieved_power(smallest, *arms, variance) == pytest.approx(power, abs=1e-3)


def test_no_effect_is_found_at_the_level_and_takes_forever():
    assert achieved_power(0.0, 100, 100, 1.0) == pytest.approx(0.05)
    assert achieved_power(0.5, 0, 100, 1.0) == pytest.approx(0.05)
    assert np.isinf(needed_rows(0.0, 1.0))
    assert needed_rows([0.1, 0.2], 1.0).tolist() == [3140, 785]  # 31.4 s^2 / d^2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: detectable_effect(10, 10, 1.0, alpha=0.0), "alpha must be between"),
        (lambda: detectable_effect(10, 10, 1.0, power=1.0), "power must be between"),
        (lambda: detectable_effect(10, 10, -1.0), "variance must not be negative"),
        (lambda: detectable_effect(-1, 10, 1.0), "n_arm must not be negative"),
        (lambda: needed_rows(0.1, 1.0, share=1.0), "share must be between"),
        (lambda: needed_rows(np.nan, 1.0), "effect must be finite"),
        (lambda: achieved_power("much", 1, 1, 1.0), "effect must hold numbers"),
        (lambda: binary_variance(1.2), "rate must be from 0 to 1"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(DataError, match=says):
        call()
