"""The power of a drawn trial: every outcome and arm, against the control units that compare."""

from __future__ import annotations

import numpy as np
import pytest

from campaigns.arms import ArmTable
from models.metrics.experiments import binary_variance, detectable_effect
from serving.policy.power import power_report
from serving.policy.trial import sample_trial

ARMS = ArmTable(
    names=("none", "coins", "skin"),
    factors=("bonus",),
    level_names=(("none",), ("coins",), ("skin",)),
    levels=np.array([[0], [1], [2]]),
    costs=np.array([0.0, 0.3, 0.6]),
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
