"""Power: an effect of the size that is promised is found as often as is promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from campaigns.arms import ArmTable
from campaigns.errors import DataError
from serving.policy.power import binary_variance, detectable_effect, power_report
from serving.policy.trial import sample_trial

ARMS = ArmTable(
    names=("none", "coins", "skin"),
    factors=("bonus",),
    level_names=(("none",), ("coins",), ("skin",)),
    levels=np.array([[0], [1], [2]]),
    costs=np.array([0.0, 0.3, 0.6]),
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


def test_the_report_names_every_outcome_and_arm():
    trial = sample_trial(range(900), ARMS, budget=np.inf, epsilon=1.0, epoch="e", salt="s")
    report = power_report(trial, [0.4, 0.0], [binary_variance(0.4), 9.0], ["login", "spend"])
    assert [(row["outcome"], row["arm"]) for row in report] == [
        ("login", "coins"),
        ("login", "skin"),
        ("spend", "coins"),
        ("spend", "skin"),
    ]
    first = report[0]
    assert (first["n_arm"], first["n_control"], first["mean"]) == (300, 300, 0.4)
    assert first["detectable_effect"] == pytest.approx(float(detectable_effect(300, 300, 0.24)))
    assert first["relative_effect"] == pytest.approx(first["detectable_effect"] / 0.4)
    assert report[2]["relative_effect"] is None


def test_an_arm_is_compared_with_control_units_that_could_have_got_it():
    eligible = np.ones((900, 3), dtype=bool)
    eligible[:600, 2] = False
    trial = sample_trial(
        range(900), ARMS, budget=np.inf, epsilon=1.0, epoch="e", salt="s", eligible=eligible
    )
    coins, skin = power_report(trial, [0.4], [0.24], ["login"])
    assert (coins["n_arm"], coins["n_control"]) == (400, 400)
    assert (skin["n_arm"], skin["n_control"]) == (100, 100)
    empty = sample_trial(range(900), ARMS, budget=0.0, epsilon=1.0, epoch="e", salt="s")
    assert power_report(empty, [0.4], [0.24], ["login"])[0]["detectable_effect"] is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: detectable_effect(10, 10, 1.0, alpha=0.0), "alpha must be between"),
        (lambda: detectable_effect(10, 10, 1.0, power=1.0), "power must be between"),
        (lambda: detectable_effect(10, 10, -1.0), "variance must not be negative"),
        (lambda: detectable_effect(-1, 10, 1.0), "n_arm must not be negative"),
        (lambda: binary_variance(1.2), "rate must be from 0 to 1"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(DataError, match=says):
        call()
