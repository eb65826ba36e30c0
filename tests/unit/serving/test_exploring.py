"""Strategies of exploration in decisions: schedules, directed draws and Thompson sampling, online and in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import CampaignError, DataError
from campaigns.loading import parse_campaign
from campaigns.spec import Campaign
from serving.batch import decide_batch
from serving.decider import Policy, Unit, assess, decide
from serving.events import EventStore
from serving.exploring import epoch_number
from serving.ledger import Ledger
from serving.records import Decision
from serving.service import Service
from tests.unit.serving.test_limits import campaign, table

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
DIAL = {"trial": 0.04, "base": 0.0, "slope": 0.5}


@dataclass
class Members:
    """Five members; about units with few games they disagree which arm is best."""

    campaign: Campaign
    price: float = 0.0
    limit_prices: dict[str, float] = field(default_factory=dict)
    dial: dict[str, float] | None = field(default_factory=lambda: dict(DIAL))

    def predict_members(self, columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
        games = np.nan_to_num(np.asarray(columns["games"], dtype=float))
        lean = np.linspace(-0.25, 0.25, 5)[:, None] * (games < 4)
        login = np.zeros((5, len(games), 4))
        login[:, :, 1] = 0.1 * games + lean
        login[:, :, 2] = 0.12 * games
        login[:, :, 3] = 0.01
        return np.stack([login, 0 * login], axis=3)

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        raise AssertionError("the members are asked once, and their mean is taken")


@dataclass
class Single:
    campaign: Campaign
    price: float = 0.0

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.zeros((len(columns["games"]), 4, 2))


def units(count: int, games: float | None = None) -> list[Unit]:
    rows = table(count).to_dict("records")
    return [Unit(r["unit_id"], {"games": games or r["games"], "device": r["device"]}) for r in rows]


def made(
    model: Any, who: list[Unit], now: datetime = NOW, ledger: Ledger | None = None
) -> list[Decision]:
    return decide(assess(model, who), Policy.of(model, "1"), ledger or Ledger(), now)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("per", "began", "number"),
    [
        ("hour", "2026-02-03T11:59", 2),
        ("hour", "2026-02-02T12:00", 25),
        ("day", "2026-02-03T00:00", 1),
        ("day", "2026-01-31T23:59", 4),
        ("total", "2026-02-02T12:00", 2),
        ("week", "2026-02-02T00:00", 1),
        ("week", "2026-02-01T23:59", 2),
        ("month", "2025-12-31T00:00", 3),
    ],
)
def test_epochs_are_counted_from_the_first_decision(per: str, began: str, number: int) -> None:
    rules = campaign().model_copy(
        update={"budget": campaign().budget.model_copy(update={"per": per})}
    )
    first = datetime.fromisoformat(began).replace(tzinfo=UTC)
    assert epoch_number(rules, first, NOW) == number
    assert epoch_number(rules, None, NOW) == 1


def test_a_scheduled_epsilon_falls_from_epoch_to_epoch(store: EventStore) -> None:
    falling = {"strategy": "schedule", "epsilon": 0.4, "schedule": {"end": 0.15, "half": 1}}
    model = Single(campaign(**falling))
    asked = []
    for day in range(4):
        now = NOW + timedelta(days=day)
        batch = decide_batch(model, table(2000, seed=day), store, now=now)
        later = now + timedelta(hours=1)
        online = made(model, units(2000), later, store.ledger_of(model.campaign, later))
        for decisions in (batch.decisions, online):
            (epsilon,) = {one.epsilon for one in decisions}
            assert np.mean([one.explored for one in decisions]) == pytest.approx(epsilon, abs=0.04)
            asked.append(epsilon)
    assert asked == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.15, 0.15, 0.15, 0.15])


@pytest.mark.parametrize("strategy", ["directed", "thompson"])
def test_logged_propensities_are_true_sum_to_one_and_keep_the_floor(strategy: str) -> None:
    """Units that look alike: every arm comes as often as it says."""
    model = Members(campaign(strategy=strategy, epsilon=0.4, floor=0.01))
    decisions = made(model, units(4000, games=2.0))
    seen = Counter(one.arm for one in decisions)
    said = {one.arm: one.propensity for one in decisions}
    assert all(one.propensity == pytest.approx(said[one.arm]) for one in decisions)
    assert sum(said.values()) == pytest.approx(1.0)
    assert len(said) == 4
    assert min(said.values()) >= 0.01 - 1e-12
    assert said[1] > 0.05 < said[2]  # the two that members dispute
    for arm, chance in said.items():
        assert seen[arm] / 4000 == pytest.approx(chance, abs=4 * np.sqrt(chance / 4000))


@pytest.mark.parametrize("strategy", ["directed", "thompson"])
def test_draws_stick_within_an_epoch_and_follow_the_dispute(strategy: str) -> None:
    model = Members(campaign(strategy=strategy, epsilon=0.4))
    first, again = (made(model, units(1500), NOW + timedelta(hours=h)) for h in (0, 9))
    one_by_one = [made(model, [unit])[0] for unit in units(1500)[:200]]
    assert [d.arm for d in first] == [d.arm for d in again]
    assert [d.arm for d in first[:200]] == [d.arm for d in one_by_one]
    agreed = [d for d in first if d.features["games"] >= 4]
    disputed = [d for d in first if d.features["games"] < 4]
    away = [np.mean([d.arm != 2 for d in some]) for some in (agreed, disputed)]
    assert away[0] < 0.05 < 0.1 < away[1]
    assert {d.explored_propensity for d in first if d.explored} == {0.25}


@settings(max_examples=12, deadline=None)
@given(
    strategy=st.sampled_from(["directed", "thompson"]),
    amount=st.floats(0, 20),
    epsilon=st.sampled_from([0.1, 0.5, 1.0]),
    sizes=st.lists(st.sampled_from([1, 5, 30]), min_size=2, max_size=6),
)
def test_neither_budget_nor_stock_is_ever_passed(
    strategy: str, amount: float, epsilon: float, sizes: list[int]
) -> None:
    stock = {"kind": "stock", "arm": "skin", "at_most": 12}
    model = Members(campaign(stock, amount=amount, strategy=strategy, epsilon=epsilon))
    ledger, given = Ledger(), []
    for size in sizes:
        new = made(model, units(size), ledger=ledger)
        ledger, given = ledger.plus(new), given + new
    assert ledger.spend <= amount + 1e-9
    assert sum(one.arm_name == "skin" for one in given) <= 12


def test_the_spend_cap_holds_for_directed_draws() -> None:
    model = Members(campaign(amount=200, strategy="thompson", epsilon=0.8, max_spend_share=0.05))
    ledger = Ledger()
    for turn in range(40):
        who = [Unit(f"{turn}-{one.unit_id}", one.features) for one in units(20, games=2.0)]
        ledger = ledger.plus(made(model, who, ledger=ledger))
    assert 8 < ledger.exploration_spend < 12  # of 10, but for the last draws
    assert ledger.spend > 100
    (last,) = made(model, [Unit("x", {"games": 2.0, "device": "pc"})], ledger=ledger)
    assert "exploration cap" in last.reason


@pytest.mark.parametrize("strategy", ["directed", "thompson"])
@pytest.mark.parametrize("epsilon", [0.2, 1.0])
def test_a_batch_draws_within_budget_and_limits(
    store: EventStore, strategy: str, epsilon: float
) -> None:
    limits = (
        {"kind": "stock", "arm": "skin", "at_most": 60},
        {"kind": "share", "at_least": 0.3, "where": {"device": "pc"}},
    )
    rules = {"strategy": strategy, "epsilon": epsilon, "floor": 0.04, "holdout": 0.05}
    model = Members(campaign(*limits, amount=60, **rules))
    run = decide_batch(model, table(500), store, now=NOW)
    assert 45 < run.spend <= 60 + 1e-9
    assert sum(one.arm_name == "skin" for one in run.decisions) <= 60
    on_pcs = [one.arm > 0 for one in run.decisions if one.features["device"] == "pc"]
    assert np.mean(on_pcs) >= 0.3
    assert all(0 < one.propensity <= 1 for one in run.decisions)
    drawn = np.mean([one.epsilon for one in run.decisions])
    assert 0.02 < drawn <= epsilon + 1e-9
    # Inverse propensity weights recover how many units there are: the propensities are true.
    free = [one for one in run.decisions if not one.holdout]
    assert sum(1 / one.propensity for one in free if one.arm == 0) == pytest.approx(
        len(free), rel=0.3
    )


@pytest.mark.parametrize("strategy", ["directed", "thompson"])
def test_a_model_without_members_is_refused_by_name(strategy: str, store: EventStore) -> None:
    model = Single(campaign(strategy=strategy, epsilon=0.4))
    with pytest.raises(DataError, match=f"{strategy}.*ensemble.*members of at least 2"):
        assess(model, units(3))
    service = Service(store, lambda name, version: model, token="t")
    with pytest.raises(DataError, match="members of at least 2"):
        service.configure({"bonus": "1"})
    service.close()


def test_directed_exploration_without_a_dial_is_not_served(store: EventStore) -> None:
    model = Members(campaign(strategy="directed", epsilon=0.4), dial=None)
    service = Service(store, lambda name, version: model, token="t")
    with pytest.raises(DataError, match="run the campaign again"):
        service.configure({"bonus": "1"})
    service.close()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"strategy": "greedy"}, "exploration.strategy: 'greedy' is not allowed; choose from"),
        ({"strategy": "schedule"}, "exploration.schedule: is missing; say how epsilon falls"),
        ({"schedule": {}}, "exploration.schedule: goes with strategy 'schedule'"),
        (
            {"strategy": "schedule", "schedule": {"end": 0.3}},
            "exploration.schedule.end: 0.3 is above epsilon, 0.2",
        ),
        ({"strategy": "schedule", "schedule": {"half": 0}}, "exploration.schedule.half: input"),
        ({"strategy": "thompson", "floor": 0.1}, "0.1 for each of 4 arms is more than epsilon"),
    ],
)
def test_a_mistake_is_one_sentence(rules: dict[str, Any], words: str) -> None:
    import yaml

    data = campaign().model_dump(mode="json")
    del data["treatments"]["bonus"]["dose"], data["treatments"]["mail"]["dose"]
    data["exploration"] = {"epsilon": 0.2, "max_spend_share": 1.0, **rules}
    with pytest.raises(CampaignError) as caught:
        parse_campaign(yaml.safe_dump(data))
    (line,) = str(caught.value).splitlines()
    assert words in line
