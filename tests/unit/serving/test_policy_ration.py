"""Rationing: any policy at any budget, by lot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from serving.policy.ration import ration

COST = np.array([0.0, 0.3, 0.55])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.floats(0, 30), st.integers(0, 5))
def test_cost_and_expected_cost_keep_to_the_budget(arm, budget, epoch):
    found = ration(arm, COST, budget, epoch=epoch)
    assert COST[found.arm].sum() <= budget + 1e-9
    assert found.cost <= budget
    assert (found.probabilities @ COST).sum() <= budget + 1e-9
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    assert set(np.flatnonzero(found.arm != arm)) <= set(np.flatnonzero(np.array(arm) > 0))


def test_everybody_gets_the_arm_where_the_budget_allows():
    found = ration([1, 2, 0], COST, 5.0)
    assert found.arm.tolist() == [1, 2, 0]
    assert found.share == 1
    np.testing.assert_array_equal(found.probabilities, np.eye(3)[[1, 2, 0]])


def test_the_lot_falls_on_the_share_that_the_probabilities_say():
    units = [f"u{i}" for i in range(20_000)]
    found = ration(np.ones(20_000, dtype=int), COST, 1500.0, units=units, salt="s")
    assert found.share == pytest.approx(0.25)
    assert found.arm.sum() == 5000
    assert found.probabilities[0].tolist() == pytest.approx([0.75, 0.25, 0])
    again = ration(np.ones(20_000, dtype=int), COST, 1500.0, units=units, salt="s")
    np.testing.assert_array_equal(found.arm, again.arm)
    anew = ration(np.ones(20_000, dtype=int), COST, 1500.0, units=units, salt="s", epoch=2)
    assert 0.2 < anew.arm[found.arm == 1].mean() < 0.3


def test_order_of_rows_is_irrelevant():
    arm, units = np.arange(3000) % 3, np.arange(3000)
    order = np.random.default_rng(0).permutation(3000)
    one = ration(arm, COST, 100.0, units=units).arm
    np.testing.assert_array_equal(
        ration(arm[order], COST, 100.0, units=units[order]).arm, one[order]
    )


def test_a_random_policy():
    policy = np.full((30_000, 3), 1 / 3)
    free = ration(policy, COST, np.inf)
    assert np.bincount(free.arm) / 30_000 == pytest.approx([1 / 3] * 3, abs=0.01)
    found = ration(policy, COST, 2000.0)
    assert 1999 < found.cost <= 2000
    assert (found.probabilities @ COST).sum() == pytest.approx(2000)
    freq = np.bincount(found.arm, minlength=3) / 30_000
    assert freq == pytest.approx(found.probabilities[0], abs=0.01)


def test_no_budget_gives_nothing_and_free_arms_are_not_rationed():
    assert ration([1, 2], COST, 0.0).arm.tolist() == [0, 0]
    found = ration([1, 1], [0.0, 0.0], 0.0)
    assert (found.arm.tolist(), found.share) == ([1, 1], 1.0)


@pytest.mark.parametrize(
    ("arm", "cost", "budget", "says"),
    [
        ([1], COST, -1, "budget"),
        ([1], COST, float("nan"), "budget"),
        ([1], [0, -1.0], 1, "not negative"),
        ([3], COST, 1, "from 0 to 2, but holds 3"),
        ([1.5], COST, 1, "whole numbers"),
        ([[0.5, 0.6, 0]], COST, 1, "sum to 1"),
        ([1], 3.0, 1, "cost must have the shape"),
    ],
)
def test_bad_input_is_named(arm, cost, budget, says):
    with pytest.raises(DataError, match=says):
        ration(arm, cost, budget)
