"""What a decision is worth: the right arm, a true propensity, and a budget that holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from campaigns.spec import Budget, Campaign
from serving.decider import Assessed, Policy, Unit, assess, decide
from serving.ledger import Ledger
from serving.pacing import elapsed, paced_price
from serving.policy.exploration import full_propensities
from serving.records import Decision

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)


def campaign(**changes: Any) -> Campaign:
    data: dict[str, Any] = {
        "name": "bonus",
        "unit": "player_id",
        "source": {"kind": "events"},
        "timestamp": "at",
        "features": {"numeric": ["games"], "categorical": ["device"]},
        "treatments": {
            "bonus": {
                "column": "bonus",
                "control": "none",
                "levels": {"none": {"cost": 0.0}, "coins": {"cost": 0.3}, "skin": {"cost": 0.55}},
            }
        },
        "outcomes": {"login": {"kind": "binary", "value": 1.0}},
        "budget": {"per": "day", "amount": 1000.0},
        "exploration": {"epsilon": 0.2, "max_spend_share": 1.0, "salt": "s"},
    }
    return Campaign.model_validate({**data, **changes})


@dataclass
class Linear:
    """Coins help by 0.1 a game, skins by 0.2 a game: on phones only."""

    campaign: Campaign
    price: float = 0.0

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        games = np.nan_to_num(columns["games"])
        phone = np.array([device == "ios" for device in columns["device"]])
        uplift = np.outer(games * phone, [0.0, 0.1, 0.2])
        return np.repeat(0.2 + uplift[:, :, None], len(self.campaign.outcomes), axis=2)


def units(count: int, games: float = 4.0, device: str | None = "ios") -> list[Unit]:
    return [Unit(f"u{i}", {"games": games, "device": device}) for i in range(count)]


def made(
    rules: Campaign, who: list[Unit], ledger: Ledger | None = None, price: float = 0.0
) -> list[Decision]:
    model = Linear(rules)
    policy = Policy(rules, "3", price)
    return decide(assess(model, who), policy, ledger or Ledger(), NOW)


GREEDY = {"epsilon": 0.0, "salt": "s"}


def test_the_arm_is_the_best_at_the_price() -> None:
    rules = campaign(exploration=GREEDY, budget={"per": "total", "amount": 1000.0})
    by_price = {price: made(rules, units(1), price=price)[0].arm_name for price in (0.0, 1.0, 2.0)}
    # value 0.4 and 0.8, cost 0.3 and 0.55
    assert by_price == {0.0: "skin", 1.0: "skin", 2.0: "none"}
    one = made(rules, units(1))[0]
    assert (one.propensity, one.explored, one.explored_propensity, one.reason) == (
        1.0,
        False,
        None,
        "",
    )
    assert (one.levels, one.cost, one.model_version) == ({"bonus": "skin"}, 0.55, "3")
    assert (one.period, one.epoch, one.policy_version) == ("total", "2026-02-03", rules.hash)


def test_missing_features_reach_the_model_as_missing() -> None:
    rules = campaign(exploration=GREEDY)
    who = [Unit("u", {"games": None, "device": None}), Unit("v", {})]
    assert [one.arm for one in made(rules, who)] == [0, 0]


def test_min_return_is_a_floor_of_the_price() -> None:
    rules = campaign(exploration=GREEDY, budget={"per": "day", "amount": 100, "min_return": 2.0})
    assert made(rules, units(1), price=0.0)[0].arm_name == "none"


@pytest.mark.parametrize("demand", [0.5, 1.0, 3.0])
def test_spending_tracks_the_clock(demand: float) -> None:
    """However many units come, the budget lasts the day; and it isn't left over where it is wanted."""
    rng = np.random.default_rng(0)
    rules = campaign(exploration=GREEDY, budget={"per": "day", "amount": 100.0})
    games = rng.gamma(2.0, 1.0, size=int(500 * demand))
    ledger, gained, by_quarter = Ledger(), 0.0, []
    start = NOW.replace(hour=0)
    # At price 1.2 some 500 such units a day cost about 100.
    policy = Policy(rules, "3", 1.2)
    for turn, played in enumerate(games):
        now = start + turn / len(games) * timedelta(days=1)
        assessed = assess(Linear(rules), [Unit(str(turn), {"games": played, "device": "ios"})])
        decisions = decide(assessed, policy, ledger, now)
        ledger = ledger.plus(decisions)
        gained += assessed.value[0, decisions[0].arm]
        if (turn + 1) % (len(games) // 4) == 0:
            by_quarter.append(ledger.spend)
    assert ledger.spend <= 100.0
    if demand >= 1:
        np.testing.assert_allclose(by_quarter, [25, 50, 75, 100], atol=15)
    if demand == 3:  # those who respond most get it: more than by giving until it is gone
        first = np.cumsum(np.where(games * 0.2 > 1.2 * 0.55, 0.55, 0.0)) <= 100.0
        assert gained > 1.05 * (games * 0.2)[first & (games * 0.2 > 1.2 * 0.55)].sum()


def test_a_unit_gets_only_arms_that_it_may() -> None:
    rules = campaign()
    who = [Unit(f"u{i}", {"games": 4.0, "device": "ios"}, arms=("coins",)) for i in range(400)]
    arms = Counter(one.arm_name for one in made(rules, who))
    assert set(arms) == {"none", "coins"}
    with pytest.raises(DataError, match=r"'gems'.*'none', 'coins' or 'skin'"):
        made(rules, [Unit("u", {}, arms=("gems",))])


def test_propensities_are_true() -> None:
    """Over many units the arms come as often as their propensities say."""
    decisions = made(campaign(budget={"amount": 1e6}), units(6000))
    share = np.bincount([one.arm for one in decisions], minlength=3) / 6000
    truth = full_propensities(np.array([2]), np.ones((1, 3), dtype=bool), 0.2)[0]
    np.testing.assert_allclose(share, truth, atol=4 * np.sqrt(0.25 / 6000))
    for one in decisions:
        assert one.propensity == pytest.approx(truth[one.arm])
        assert one.explored_propensity == (pytest.approx(1 / 3) if one.explored else None)
    # The mean of 1 / propensity over those who got an arm recovers how many units there are.
    weight = sum(1 / one.propensity for one in decisions if one.arm == 1)
    assert weight == pytest.approx(6000, rel=0.15)


def test_holdout_units_get_control_for_good() -> None:
    rules = campaign(
        exploration={"epsilon": 0.5, "holdout": 0.3, "max_spend_share": 1.0, "salt": "s"}
    )
    decisions = made(rules, units(2000))
    held = [one for one in decisions if one.holdout]
    assert len(held) == pytest.approx(600, rel=0.15)
    assert {(one.arm, one.propensity, one.explored) for one in held} == {(0, 1.0, False)}
    assert held[0].reason == "The unit is held out."


def test_a_decision_can_be_derived_again() -> None:
    first, second = made(campaign(), units(200)), made(campaign(), units(200))
    assert [one.arm for one in first] == [one.arm for one in second]
    assert len({one.decision_id for one in first + second}) == 400


def test_an_exploration_cap_ends_exploration_and_says_so() -> None:
    rules = campaign(exploration={"epsilon": 0.5, "max_spend_share": 0.01, "salt": "s"})
    spent = Ledger(decisions=100, spend=50.0, exploration_spend=10.0)
    decisions = made(rules, units(50), spent)
    assert not any(one.explored for one in decisions)
    assert {one.propensity for one in decisions} == {1.0}
    assert "exploration cap is used up" in decisions[0].reason
    assert decisions[0].epsilon == 0.0


def test_a_used_up_budget_means_control_and_says_so() -> None:
    decisions = made(campaign(), units(50), Ledger(decisions=1, spend=1000.0))
    assert {(one.arm, one.propensity, one.explored) for one in decisions} == {(0, 1.0, False)}
    assert "budget is used up: 1000 of 1000" in decisions[0].reason


def test_arms_that_cost_nothing_need_no_budget() -> None:
    free = {"column": "bonus", "control": "none", "levels": {"none": {}, "coins": {}, "skin": {}}}
    rules = campaign(treatments={"bonus": free}, budget={"per": "day", "amount": 0.0})
    assert Counter(one.arm for one in made(rules, units(100)))[2] > 50


@settings(max_examples=60, deadline=None)
@given(
    amount=st.floats(0, 20),
    spent=st.floats(0, 20),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    epsilon=st.sampled_from([0.0, 0.3, 1.0]),
    per=st.sampled_from(["day", "total", "unit"]),
)
def test_a_budget_is_never_overspent(
    amount: float, spent: float, sizes: list[int], epsilon: float, per: str
) -> None:
    amount = amount / 20 if per == "unit" else amount
    rules = campaign(
        budget={"per": per, "amount": amount},
        exploration={"epsilon": epsilon, "max_spend_share": 1.0, "salt": "s"},
    )
    ledger = Ledger(spend=spent)
    for turn, size in enumerate(sizes):
        who = [Unit(f"{turn}-{i}", {"games": 9.0, "device": "ios"}) for i in range(size)]
        ledger = ledger.plus(made(rules, who, ledger))
    limit = amount * ledger.decisions if per == "unit" else amount
    assert ledger.spend <= max(limit, spent) + 1e-9


def test_a_budget_per_unit_grows_with_the_units() -> None:
    rules = campaign(budget={"per": "unit", "amount": 0.275}, exploration=GREEDY)
    arms = Counter(one.arm_name for one in made(rules, units(100)))
    assert arms["skin"] in (49, 50)  # sums of money are rounded


def test_an_observed_cost_is_what_an_arm_costs() -> None:
    rules = campaign(
        outcomes={
            "login": {"kind": "binary", "value": 5.0},
            "paid": {"kind": "continuous", "role": "cost"},
        },
        exploration=GREEDY,
    )
    assert made(rules, units(1))[0].cost == pytest.approx(0.8)  # the predicted uplift of 'paid'


def test_a_model_that_answers_nonsense_is_refused() -> None:
    class Broken(Linear):
        def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
            return super().predict(columns) * np.nan

    with pytest.raises(DataError, match="model answers"):
        assess(Broken(campaign()), units(2))


def test_assessed_rows_can_be_taken_apart() -> None:
    assessed = assess(Linear(campaign()), units(3))
    assert isinstance(assessed[1:2], Assessed)
    assert len(assessed[1:2]) == 1


@pytest.mark.parametrize(
    ("per", "share"),
    [
        ("hour", 0.5),
        ("day", 12.5 / 24),
        ("week", (1 + 12.5 / 24) / 7),
        ("month", (2 + 12.5 / 24) / 28),
    ],
)
def test_how_much_of_a_period_has_passed(per: str, share: float) -> None:
    budget = Budget.model_validate({"per": per, "amount": 1})
    assert elapsed(budget, datetime(2026, 2, 3, 12, 30, tzinfo=UTC)) == pytest.approx(share)


def test_a_budget_without_an_end_is_not_paced() -> None:
    assert elapsed(Budget(per="total", amount=1), NOW) is None
    assert elapsed(Budget(per="day", amount=1, pacing="none"), NOW) is None
    assert paced_price(2.0, min_return=0.5, spent=9.0, budget=10.0, elapsed=None) == 2.0
    assert paced_price(2.0, min_return=0.5, spent=0.0, budget=10.0, elapsed=1.0) == 0.5


def test_a_tiny_budget_has_a_finite_price() -> None:
    price = paced_price(1.0, min_return=0.0, spent=1.0, budget=1.1e-308, elapsed=0.5)
    assert np.isfinite(price)
