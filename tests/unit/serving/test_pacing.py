"""Pacing: the price follows what is left, mends a wrong start, and forgets nothing at a restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pacing import Ledger, day, fixed, live, paced
from serving.pacing import paced_price
from serving.policy.allocation import allocate

SHARES = st.floats(0, 1)


def price(spent, elapsed, base=2.0, floor=0.0):
    return paced_price(base, min_return=floor, spent=spent, budget=1.0, elapsed=elapsed)


def test_on_the_clock_the_price_is_the_trained_one():
    for elapsed in (0.0, 0.25, 0.9):
        assert price(elapsed, elapsed) == pytest.approx(2.0)


@given(SHARES, SHARES, SHARES)
def test_it_rises_with_what_is_spent_and_falls_as_time_passes(one, other, third):
    low, high = sorted((one, other))
    assert price(low, third) <= price(high, third)
    assert price(third, low) >= price(third, high)


@given(SHARES, SHARES, st.floats(0, 5), st.floats(0, 5))
def test_it_is_finite_and_never_below_the_floor(spent, elapsed, base, floor):
    found = price(2 * spent, elapsed, base, floor)
    assert floor <= found <= 1e7


def test_spending_evenly_what_is_left_keeps_the_price():
    at_noon = price(0.7, 0.5)
    assert price(0.85, 0.75) == pytest.approx(at_noon)
    assert at_noon == pytest.approx(2.0 / 0.6**3)


def test_a_base_of_nothing_still_rises():
    assert price(0.2, 0.5, base=0.0) == 0.0
    assert price(0.8, 0.5, base=0.0) == pytest.approx(0.4**-3 - 1)


@pytest.mark.parametrize("scenario", ["waves", "poor spike", "twice", "half", "falling", "rising"])
def test_a_day_spends_its_budget_and_no_more_though_nothing_is_refused(scenario):
    the_day = day(scenario, 20_000, seed=0)
    alone = live(the_day, paced(the_day), guard=False)
    assert 0.97 * the_day.budget < alone.spent < 1.01 * the_day.budget


@pytest.mark.parametrize("scenario", ["twice", "half", "falling", "rising"])
def test_where_training_was_wrong_it_is_worth_more_than_a_fixed_price(scenario):
    the_day = day(scenario, 20_000, seed=0)
    stays, follows = live(the_day, fixed(the_day)), live(the_day, paced(the_day))
    best = allocate(the_day.value, [0.0, 0.3, 0.55], the_day.budget).value
    assert stays.spent <= the_day.budget
    assert follows.spent <= the_day.budget
    assert 1.05 * stays.value < follows.value < best


def test_a_restart_that_keeps_the_ledger_changes_nothing():
    the_day = day("rising", 10_000, seed=1)
    whole = live(the_day, paced(the_day))
    morning = live(the_day, paced(the_day), part=slice(0, 6000))
    evening = live(
        the_day, paced(the_day), Ledger(morning.value, morning.spent), part=slice(6000, None)
    )
    assert evening == whole
