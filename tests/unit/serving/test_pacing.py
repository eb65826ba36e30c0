"""Pacing: the price follows what is left, mends a wrong start, and forgets nothing at a restart."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pacing import Ledger, day, fixed, live, paced, shaped
from campaigns.errors import CampaignError
from campaigns.loading import parse_campaign
from campaigns.spec import Budget
from serving.pacing import elapsed, paced_price
from serving.policy.allocation import allocate

GAME_BONUS = Path(__file__).resolve().parents[3] / "campaigns" / "game_bonus.yaml"
SHARES = st.floats(0, 1)


def price(spent, elapsed, base=2.0, floor=0.0):
    return paced_price(base, min_return=floor, spent=spent, budget=1.0, elapsed=elapsed)


def test_on_the_clock_the_price_is_the_trained_one():
    for passed in (0.0, 0.25, 0.9):
        assert price(passed, passed) == pytest.approx(2.0)


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


@pytest.mark.parametrize(
    ("per", "traffic", "at", "passed"),
    [
        ("day", [1.0] * 24, "2026-02-03T09:30", 9.5 / 24),
        ("day", [0.0] * 12 + [5.0] + [0.0] * 11, "2026-02-03T12:15", 0.25),
        ("day", [0.0] * 12 + [5.0] + [0.0] * 11, "2026-02-03T11:00", 0.0),
        ("day", [3.0] * 12 + [1.0] * 12, "2026-02-03T12:00", 0.75),
        ("week", [3.0] * 12 + [1.0] * 12, "2026-02-03T12:00", 1.75 / 7),
        ("month", [3.0] * 12 + [1.0] * 12, "2026-02-03T12:00", 2.75 / 28),
        ("hour", [0.0] * 23 + [1.0], "2026-02-03T12:15", 0.25),
    ],
)
def test_time_passes_with_the_traffic(per, traffic, at, passed):
    budget = Budget(per=per, amount=1, traffic=traffic)
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert elapsed(budget, now) == pytest.approx(passed)


@pytest.mark.parametrize(
    ("traffic", "words"),
    [
        ([1.0] * 23, "budget.traffic: list should have at least 24 items"),
        ([0.0] * 24, "budget: traffic is 0 in every hour"),
        ([-1.0] + [1.0] * 23, "budget.traffic.0: input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_traffic_is_one_sentence(traffic, words):
    text = GAME_BONUS.read_text().replace("pacing: none", f"traffic: {traffic}")
    with pytest.raises(CampaignError) as caught:
        parse_campaign(text)
    (line,) = str(caught.value).splitlines()
    assert words in line


def test_waves_whose_hours_are_known_cost_less():
    the_day = day("waves", 20_000, seed=0)
    clock, traffic = live(the_day, paced(the_day)), live(the_day, shaped(the_day))
    alone = live(the_day, shaped(the_day), guard=False)
    assert traffic.value > 1.02 * clock.value
    assert 0.97 * the_day.budget < alone.spent < 1.01 * the_day.budget


def test_a_restart_that_keeps_the_ledger_changes_nothing():
    the_day = day("rising", 10_000, seed=1)
    whole = live(the_day, paced(the_day))
    morning = live(the_day, paced(the_day), part=slice(0, 6000))
    evening = live(
        the_day, paced(the_day), Ledger(morning.value, morning.spent), part=slice(6000, None)
    )
    assert evening == whole
