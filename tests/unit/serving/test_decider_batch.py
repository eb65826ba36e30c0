"""A unit table decided at once: within the budget, close to the best, with true propensities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from campaigns.spec import Campaign
from models.uncertainty import Intervals
from serving.batch import decide_batch
from serving.events import EventStore

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)


def campaign(amount: float = 100.0, **exploration: Any) -> Campaign:
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
                    "levels": {
                        "none": {"cost": 0.0},
                        "coins": {"cost": 0.3},
                        "skin": {"cost": 0.55},
                    },
                }
            },
            "outcomes": {"login": {"kind": "binary", "value": 1.0}},
            "budget": {"per": "day", "amount": amount},
            "exploration": {"epsilon": 0.1, "max_spend_share": 1.0, "salt": "s", **exploration},
        }
    )


@dataclass
class Linear:
    campaign: Campaign
    price: float = 0.0

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.outer(np.nan_to_num(columns["games"]), [0.0, 0.1, 0.15])[:, :, None]


class Unsure(Linear):
    """Its two members say a tenth less and a tenth more than it."""

    def intervals(self, columns: Mapping[str, np.ndarray]) -> Intervals:
        outcomes = self.predict(columns)
        return Intervals.of([np.stack([0.9 * outcomes, 1.1 * outcomes])], [1.0], self.campaign)


def table(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    units = [f"u{i}" for i in range(count)]
    return pd.DataFrame({"unit_id": units, "games": rng.gamma(2, 1, count), "device": "ios"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    yield opened
    opened.close()


def test_the_budget_goes_where_it_brings_most(store: EventStore) -> None:
    run = decide_batch(
        Linear(campaign(epsilon=0.0)), table(2000), store, model_version="7", now=NOW
    )
    assert 99 < run.spend <= 100
    assert run.gap < 2e-3  # what is left is less than one more arm
    assert store.ledger("bonus", "2026-02-03").spend == pytest.approx(run.spend)
    games = np.array([one.features["games"] for one in run.decisions], dtype=float)
    treated = np.array([one.arm > 0 for one in run.decisions])
    assert games[treated].min() >= games[~treated].max() - 1e-9
    frame = run.frame()
    assert frame["unit_id"].tolist() == table(2000)["unit_id"].tolist()
    kept = store.decisions(frame["decision_id"].tolist())
    assert kept == run.decisions
    assert kept[0].model_version == "7"


def test_the_table_says_how_sure_the_model_is(store: EventStore) -> None:
    made = decide_batch(Unsure(campaign()), table(500), store, now=NOW).frame()
    treated = made["arm"] > 0
    assert 0 < treated.sum() < 500
    assert (made["value_lower"] < made["value"])[treated].all()
    assert (made["value"] < made["value_upper"])[treated].all()
    assert (made.loc[~treated, ["value_lower", "value_upper"]] == 0).all(axis=None)
    assert "value_lower" not in decide_batch(Linear(campaign()), table(5), store, now=NOW).frame()


def test_exploration_has_true_propensities(store: EventStore) -> None:
    run = decide_batch(Linear(campaign(1e6)), table(5000), store, now=NOW)
    explored = [one for one in run.decisions if one.explored]
    assert len(explored) == pytest.approx(500, rel=0.2)
    for one in run.decisions:
        assert one.propensity == pytest.approx(0.1 / 3 if one.arm != 2 else 0.9 + 0.1 / 3)


def test_holdout_units_leave_their_share_to_the_others(store: EventStore) -> None:
    run = decide_batch(Linear(campaign(holdout=0.5, epsilon=0.0)), table(1000), store, now=NOW)
    assert run.spend > 99
    assert {one.arm for one in run.decisions if one.holdout} == {0}


def test_a_repeated_batch_is_the_first_one(store: EventStore) -> None:
    model = Linear(campaign())
    first = decide_batch(model, table(50), store, request_id="run-1", now=NOW)
    again = decide_batch(model, table(50), store, request_id="run-1", now=NOW)
    assert (again.decisions, again.repeated, first.repeated) == (first.decisions, True, False)
    assert store.ledger("bonus").decisions == 50


def test_batches_of_a_period_share_its_budget(store: EventStore) -> None:
    model = Linear(campaign())
    runs = [decide_batch(model, table(500, seed), store, now=NOW) for seed in range(3)]
    assert sum(run.spend for run in runs) <= 100 + 1e-9
    assert runs[-1].spend == pytest.approx(0.0, abs=0.3)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    amount=st.floats(0, 50),
    budget=st.none() | st.floats(0, 50),
    epsilon=st.sampled_from([0.0, 0.2, 1.0]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    holdout=st.sampled_from([0.0, 0.3]),
    count=st.integers(0, 60),
)
def test_a_batch_never_overspends(
    tmp_path_factory: pytest.TempPathFactory,
    amount: float,
    budget: float | None,
    epsilon: float,
    share: float,
    holdout: float,
    count: int,
) -> None:
    store = EventStore(f"sqlite:///{tmp_path_factory.mktemp('batch') / 'events.db'}")
    rules = campaign(amount, epsilon=epsilon, max_spend_share=share, holdout=holdout)
    run = decide_batch(Linear(rules), table(count), store, budget=budget, now=NOW)
    assert run.spend <= min(amount, amount if budget is None else budget) + 1e-9
    assert len(run.decisions) == count
    store.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="games"), "'games' missing"),
        (lambda t: t.assign(unit_id="same"), "comes twice"),
    ],
)
def test_a_bad_table_is_refused(store: EventStore, change: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decide_batch(Linear(campaign()), change(table(3)), store, now=NOW)
