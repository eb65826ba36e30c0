"""The benchmark of doses: its campaigns decide on the same arms, and its measures know the truth."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.doses import campaign, measure, score
from campaigns.worlds import world


def test_with_and_without_a_dose_the_arms_and_their_costs_are_the_same():
    dosed, arms = (campaign(3, dose).arm_table for dose in (True, False))
    assert dosed.names == arms.names
    np.testing.assert_allclose(dosed.costs, arms.costs)
    assert (bool(dosed.doses[0]), bool(arms.doses[0])) == (True, False)


def test_the_measures_are_of_the_truth_of_constants_and_of_an_order_upside_down():
    shop, spec = world("discount"), campaign(0, True)
    truth = shop.truth(shop.units(4000, seed=1))
    assert score(truth, truth, spec) == {
        "purchase": 0.0, "revenue": 0.0, "reversed": 0.0, "value": pytest.approx(1.0),
    }  # fmt: skip
    constant = np.broadcast_to(truth.mean(axis=0), truth.shape)
    found = score(constant, truth, spec)
    assert (found["purchase"], found["revenue"]) == pytest.approx((1.0, 1.0))
    assert 0.0 < found["value"] < 0.9
    assert score(-truth, truth, spec)["reversed"] > 0.9


def test_a_model_is_measured_beside_the_truth():
    found = measure(["s_learner of arms"], 600, seed=0)
    assert [one["model"] for one in found] == ["s_learner of arms", "truth"]
    assert np.isfinite([value for value in found[0].values() if isinstance(value, float)]).all()
    assert found[0]["value"] < found[1]["value"] == 1.0
