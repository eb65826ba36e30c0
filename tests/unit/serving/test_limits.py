"""Limits of a campaign, kept online, in batches and in trials, whatever is explored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from campaigns.settings import Settings
from campaigns.spec import Campaign
from serving.batch import decide_batch
from serving.decider import Policy, Unit, assess, decide
from serving.events import EventStore
from serving.ledger import Ledger
from serving.limits import accounts, kept_online
from serving.trials import run_trial

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
SKINS = {"kind": "stock", "arm": "skin", "at_most": 30}


def campaign(*limits: dict[str, Any], amount: float = 1e6, **exploration: Any) -> Campaign:
    rules = {"epsilon": 0.2, "max_spend_share": 1.0, "salt": "s", **exploration}
    return Campaign.model_validate(
        {
            "name": "bonus",
            "unit": "player_id",
            "source": {"kind": "events"},
            "timestamp": "at",
            "features": {"numeric": ["games"], "categorical": ["device"]},
            "treatments": {
                "bonus": {
                    "column": "bonus",
                    "control": "none",
                    "levels": {"none": {}, "coins": {"cost": 0.3}, "skin": {"cost": 0.55}},
                },
                "mail": {
                    "column": "mail",
                    "control": "no",
                    "levels": {"no": {}, "yes": {"cost": 0.1}},
                },
            },
            "arms": [{"bonus": "coins"}, {"bonus": "skin"}, {"mail": "yes"}],
            "outcomes": {
                "login": {"kind": "binary", "value": 1.0},
                "sessions": {"kind": "count", "value": 0.0},
            },
            "budget": {"per": "day", "amount": amount, "pacing": "none"},
            "limits": list(limits),
            "exploration": rules,
        }
    )


@dataclass
class Linear:
    """Skins help most, and mail least; everything but mail costs some sessions."""

    campaign: Campaign
    price: float = 0.0
    limit_prices: dict[str, float] = field(default_factory=dict)

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        games = np.nan_to_num(np.asarray(columns["games"], dtype=float))
        login = np.outer(games, [0.0, 0.1, 0.2, 0.05])
        fewer = np.outer(np.ones_like(games), [0.0, -0.1, -0.2, 0.1])
        return np.stack([login, fewer], axis=2)


def table(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "unit_id": [f"{seed}-{i}" for i in range(count)],
            "games": rng.integers(1, 9, count).astype(float),
            "device": rng.choice(np.array(["ios", "pc"], dtype=object), count),
        }
    )


def units(count: int, seed: int = 0) -> list[Unit]:
    rows = table(count, seed).to_dict("records")
    return [Unit(r["unit_id"], {"games": r["games"], "device": r["device"]}) for r in rows]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    yield opened
    opened.close()


def online(rules: Campaign, sizes: list[int], prices: dict[str, float] | None = None) -> list[Any]:
    """Requests of these sizes, one after the other, through the ledger."""
    model = Linear(rules, limit_prices=prices or {})
    ledger, made = Ledger(uses=dict.fromkeys(accounts(rules, NOW).values(), 0.0)), []
    for turn, size in enumerate(sizes):
        new = decide(assess(model, units(size, turn)), Policy.of(model, "1"), ledger, NOW)
        ledger = ledger.plus(new)
        made += new
    return made


EVERY = [
    SKINS,
    {"kind": "budget", "name": "pcs", "amount": 7, "where": {"device": "pc"}},
    {"kind": "budget", "name": "mails", "amount": 3, "factor": "mail"},
    {"kind": "guardrail", "outcome": "sessions", "at_most": 8},
    {"kind": "eligibility", "arms": ["coins"], "where": {"games": {"at_least": 3, "below": 8}}},
]


def broken(made: list[Any], limits: list[dict[str, Any]]) -> list[str]:
    """Which limits decisions pass, counted by hand."""
    arms = Counter(one.arm_name for one in made)
    on_pcs = sum(one.cost for one in made if one.features["device"] == "pc")
    fall = 0.1 * arms["coins"] + 0.2 * arms["skin"] - 0.1 * arms["yes"]
    barred = [one for one in made if one.arm_name == "coins" and not 3 <= one.features["games"] < 8]
    seen = {
        "stock": arms["skin"] <= 30,
        "pcs": on_pcs <= 7 + 1e-6,
        "mails": 0.1 * arms["yes"] <= 3 + 1e-6,
        "guardrail": fall <= 8 + 1e-6,
        "eligibility": not barred,
    }
    return [key for each in limits if not seen[key := each.get("name", each["kind"])]]


@settings(max_examples=25, deadline=None)
@given(
    chosen=st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True),
    sizes=st.lists(st.sampled_from([1, 3, 40]), min_size=3, max_size=8),
    epsilon=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_no_limit_is_ever_passed_online(
    chosen: list[int], sizes: list[int], epsilon: float
) -> None:
    limits = [EVERY[i] for i in chosen]
    assert broken(online(campaign(*limits, epsilon=epsilon), sizes), limits) == []


def test_a_stock_is_used_to_its_last_piece_and_the_log_says_why_no_more() -> None:
    made = online(campaign(SKINS, epsilon=0.0), [50, 1, 9])
    assert [one.arm_name for one in made] == ["skin"] * 30 + ["coins"] * 30
    assert made[29].reason == ""
    assert made[30].reason == "stock of skin: 30 of 30 used."
    assert {one.propensity for one in made} == {1.0}


def test_propensities_are_true_where_an_arm_has_run_out() -> None:
    made = online(campaign({**SKINS, "at_most": 0}), [6000])
    share = Counter(one.arm_name for one in made)
    assert share["skin"] == 0
    for name, chance in (("control", 0.2 / 3), ("yes", 0.2 / 3), ("coins", 0.8 + 0.2 / 3)):
        assert share[name] / 6000 == pytest.approx(chance, abs=4 * np.sqrt(0.25 / 6000))
        logged = [one.propensity for one in made if one.arm_name == name]
        assert logged == pytest.approx([chance] * len(logged))
    assert {one.explored_propensity for one in made if one.explored} == {1 / 3}


def test_a_price_keeps_scarce_arms_for_those_who_gain_most() -> None:
    prices = {"stock of skin": 0.75}  # over coins a skin brings 0.1 a game
    made = online(campaign(SKINS, epsilon=0.0), [100], prices)
    assert {one.arm_name for one in made if one.features["games"] < 8} == {"coins"}
    assert {one.arm_name for one in made if one.features["games"] == 8} == {"skin"}


def test_a_least_share_is_served_by_its_price() -> None:
    share = {"kind": "share", "at_least": 0.5, "arms": ["yes"], "where": {"device": "pc"}}
    made = online(campaign(share, epsilon=0.0), [50], {"share of device pc with yes": 5.0})
    assert {one.arm_name for one in made if one.features["device"] == "pc"} == {"yes"}
    assert {one.arm_name for one in made if one.features["device"] == "ios"} == {"skin"}
    assert "fixed price" in kept_online(campaign(share))["share of device pc with yes"]


def test_what_is_used_is_kept_with_the_decisions(store: EventStore) -> None:
    coins = {"kind": "stock", "arm": "coins", "at_most": 5}
    rules = campaign({**SKINS, "per": "total"}, coins, epsilon=0.0)
    model, days = Linear(rules), []
    for day in range(3):
        now = NOW + timedelta(days=day)
        days.append(decide_batch(model, table(60, seed=day), store, now=now))
    arms = [Counter(one.arm_name for one in run.decisions) for run in days]
    assert sum(each["skin"] for each in arms) == 30  # for ever
    assert [each["coins"] for each in arms] == [5, 5, 5]  # a day
    seen = store.ledger_of(rules, NOW + timedelta(days=2)).uses
    assert seen == {("stock of skin", "total"): 30, ("stock of coins", "2026-02-05"): 5}
    later = decide(
        assess(model, units(9)), Policy.of(model, "1"), Ledger(uses=seen), NOW + timedelta(days=2)
    )
    assert {one.arm_name for one in later} <= {"control", "yes"}


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.6])
def test_a_batch_keeps_to_every_limit_as_it_is_drawn(store: EventStore, epsilon: float) -> None:
    share = {"kind": "share", "at_least": 0.3, "arms": ["yes"], "where": {"device": "pc"}}
    limits = [*(each for each in EVERY if each.get("name") != "mails"), share]
    rules = campaign(*limits, amount=40, epsilon=epsilon, holdout=0.1)
    run = decide_batch(Linear(rules), table(400), store, now=NOW)
    assert broken(run.decisions, limits[:-1]) == []
    assert run.spend <= 40 + 1e-9
    pcs = [one for one in run.decisions if one.features["device"] == "pc"]
    assert np.mean([one.arm_name == "yes" for one in pcs]) >= 0.3
    assert run.limits["stock of skin"]["uses"] <= run.limits["stock of skin"]["at_most"] == 30
    explored = sum(one.explored for one in run.decisions)
    assert explored > 0 if epsilon else explored == 0
    if 0 < epsilon < 0.5:
        held = sum(one.holdout for one in run.decisions)
        rate = run.decisions[0].epsilon
        assert rate is not None
        assert explored / (400 - held) == pytest.approx(rate, abs=0.06)


def test_a_batch_within_limits_is_as_good_as_can_be(store: EventStore) -> None:
    run = decide_batch(Linear(campaign(SKINS, epsilon=0.0)), table(500), store, now=NOW)
    games = table(500)["games"].to_numpy()
    best = 0.1 * games.sum() + 0.1 * np.sort(games)[-30:].sum()  # coins for all, skins for the best
    assert run.value.sum() == pytest.approx(best)
    assert run.limits["stock of skin"]["price"] == pytest.approx(0.8, abs=1e-4)


def test_a_share_that_cannot_be_kept_is_said(store: EventStore) -> None:
    share = {"kind": "share", "at_least": 0.5}
    with pytest.raises(DataError, match="share of everybody with a treatment"):
        decide_batch(Linear(campaign(share, amount=1)), table(400), store, now=NOW)
    assert store.ledger("bonus").decisions == 0


def test_a_trial_keeps_to_eligibility_and_stocks(tmp_path: Path) -> None:
    opened = Settings(home=tmp_path)
    opened.folder("events")
    rules = campaign(SKINS, EVERY[-1], epsilon=1.0)
    trial = run_trial(rules, table(900), None, opened, share=1.0, now=NOW)
    given = trial.decisions["arm_name"]
    assert 20 < (given == "skin").sum() <= 30
    coins = trial.decisions[given == "coins"]
    assert coins["games"].between(3, 7).all()
    assert len(coins) > 0
    open_to = np.where(trial.decisions["games"].between(3, 7), 4, 3)
    assert trial.decisions["propensity"].to_numpy() == pytest.approx(1 / open_to)
    again = run_trial(rules, table(900, seed=1), None, opened, share=1.0, now=NOW)
    total = (given == "skin").sum() + (again.decisions["arm_name"] == "skin").sum()
    assert total <= 30
