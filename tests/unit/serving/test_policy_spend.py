"""Spend: exploration and decisions stop where the money does, and say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import CampaignError, DataError
from serving.policy.exploration import explore
from serving.policy.spend import (
    effective_epsilon,
    expected_exploration_cost,
    guard_budget,
    period_key,
)

COST = np.array([0.0, 0.3, 0.6])


def test_epsilon_is_left_alone_while_the_cap_is_far():
    found = effective_epsilon(0.05, 10.0, 500.0, 0.3, decisions=1000)
    assert (found.epsilon, found.reason) == (0.05, "")


def test_epsilon_falls_to_what_the_cap_allows():
    found = effective_epsilon(0.05, 497.0, 500.0, 0.3, decisions=1000)
    assert found.epsilon == pytest.approx(0.01)  # 3.0 pays for 10 of 1000
    assert "nearly used up: 497 of 500 spent, so epsilon is 0.01 instead of 0.05" in found.reason


@pytest.mark.parametrize("spent", [499.9, 500.0, 700.0])
def test_epsilon_is_zero_when_the_cap_is_used_up(spent):
    found = effective_epsilon(0.05, spent, 500.0, 0.3)
    assert found.epsilon == 0
    assert "is used up" in found.reason


def test_free_exploration_needs_no_cap():
    assert effective_epsilon(0.05, 500.0, 500.0, 0.0).epsilon == 0.05
    assert effective_epsilon(0.05, 500.0, np.inf, 1.0).epsilon == 0.05


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0, 1), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 10), st.integers(1, 10**6)
)
def test_expected_spend_never_passes_the_cap(epsilon, spent, cap, each, decisions):
    found = effective_epsilon(epsilon, spent, cap, each, decisions=decisions)
    assert 0 <= found.epsilon <= epsilon
    assert (
        found.epsilon * decisions * each <= max(cap - spent, 0) * (1 + 1e-9)
        or each == 0
        or epsilon == 0
    )
    assert (found.reason == "") == (found.epsilon == epsilon)


def test_a_day_of_exploration_keeps_to_its_cap():
    spent, cap, eligible = 0.0, 30.0, np.ones((200, 3), dtype=bool)
    for batch in range(100):
        rate = effective_epsilon(0.2, spent, cap, expected_exploration_cost(COST), decisions=200)
        units = [f"{batch}-{i}" for i in range(200)]
        drawn = explore(np.zeros(200, dtype=int), eligible, rate.epsilon, units, "e", "s")
        spent += COST[drawn.arm[drawn.explored]].sum()
    assert 29 < spent < 32  # the last batch's luck


def test_expected_cost_of_an_explored_decision():
    assert expected_exploration_cost(COST) == pytest.approx(0.3)
    eligible = np.array([[True, True, True], [True, True, False]])
    assert expected_exploration_cost(COST, eligible) == pytest.approx((0.3 + 0.15) / 2)
    assert expected_exploration_cost(np.tile(COST, (4, 1))) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("per", "key"),
    [
        ("hour", "2025-12-31T23"),
        ("day", "2025-12-31"),
        ("week", "2026-W01"),  # ISO: the week belongs to the year of its Thursday
        ("month", "2025-12"),
        ("total", "total"),
        ("unit", "total"),
    ],
)
def test_periods_are_in_utc(per, key):
    when = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert period_key(per, when) == key


def test_periods_refuse_what_they_cannot_place():
    with pytest.raises(DataError, match="no time zone"):
        period_key("day", datetime(2026, 1, 1))
    with pytest.raises(CampaignError, match=r"'year', but must be .*'week'"):
        period_key("year", datetime(2026, 1, 1, tzinfo=UTC))


def test_a_used_up_budget_means_control_and_no_exploration():
    found = guard_budget([1, 2, 0], COST, spent=5000.0, budget=5000.0, epsilon=0.05)
    assert found.greedy_arm.tolist() == [0, 0, 0]
    assert found.epsilon == 0
    assert found.reason == "The period's budget is used up: 5000 of 5000 spent."


def test_the_last_of_the_budget_pays_for_the_first_decisions():
    found = guard_budget([1, 0, 2, 2, 1], COST, spent=4999.0, budget=5000.0, epsilon=0.0)
    assert found.greedy_arm.tolist() == [1, 0, 2, 0, 0]
    assert "2 of 5 decisions fall back to control" in found.reason


def test_far_from_the_budget_nothing_changes():
    found = guard_budget([1, 2], COST, spent=10.0, budget=5000.0, epsilon=0.05)
    assert (found.greedy_arm.tolist(), found.epsilon, found.reason) == ([1, 2], 0.05, "")
    assert guard_budget([], COST, spent=0.0, budget=1.0, epsilon=0.05).reason == ""


@pytest.mark.parametrize(("spent", "budget"), [(-1.0, 5.0), (float("nan"), 5.0), (1.0, -5.0)])
def test_bad_money_is_refused(spent, budget):
    with pytest.raises(DataError, match="must be a number that is not negative"):
        guard_budget([1], COST, spent=spent, budget=budget, epsilon=0.1)
