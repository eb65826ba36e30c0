"""Trials: drawn inside the budget, sticky, and learned from only once they were carried out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import CampaignError
from campaigns.loading import parse_campaign
from campaigns.settings import Settings
from serving.events import EventStore
from serving.records import OutcomeRecord
from serving.trials import run_trial

CAMPAIGN = parse_campaign(
    """
name: bonus
unit: player_id
source: {kind: events}
timestamp: at
features: {numeric: [games], categorical: [device]}
treatments:
  bonus: {column: bonus, control: none, levels: {none: {}, coins: {cost: 0.3}, skin: {cost: 0.6}}}
outcomes: {login: {kind: binary, value: 1.0}}
budget: {per: day, amount: 100}
exploration: {epsilon: 1.0, max_spend_share: 0.5}
attribution: {days: 1}
"""
)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path)
    settings.folder("events")
    return settings


def units(count: int) -> pd.DataFrame:
    ids = np.array([f"u{i}" for i in range(count)], dtype=object)
    games = np.where(np.arange(count) % 7 == 0, np.nan, np.arange(count, dtype=float))
    device = np.array([("ios", "web", None)[i % 3] for i in range(count)], dtype=object)
    return pd.DataFrame({"unit_id": ids, "games": games, "device": device})


def store(settings: Settings) -> EventStore:
    return EventStore(settings.event_store_url)


def test_a_trial_stays_inside_its_share_of_the_budget(settings: Settings) -> None:
    trial = run_trial(CAMPAIGN, units(5_000), None, settings, share=0.5, now=NOW)
    spent = CAMPAIGN.arm_table.costs[trial.decisions["arm"]].sum()
    assert 0.9 * 25 < spent <= 25
    assert trial.decisions["propensity"].eq(1 / 3).all()
    assert store(settings).ledger("bonus", "2026-03-01").exploration_spend == pytest.approx(spent)


def test_a_second_trial_of_the_day_draws_other_units_and_keeps_to_what_is_left(
    settings: Settings,
) -> None:
    first = run_trial(CAMPAIGN, units(5_000), None, settings, share=1.0, now=NOW)
    later = NOW + timedelta(hours=3)
    second = run_trial(CAMPAIGN, units(5_000), None, settings, share=1.0, now=later)
    assert not set(first.decisions["unit_id"]) & set(second.decisions["unit_id"])
    assert store(settings).ledger("bonus", "2026-03-01").exploration_spend <= 50
    tomorrow = run_trial(
        CAMPAIGN, units(5_000), None, settings, share=1.0, now=NOW + timedelta(days=1)
    )
    assert len(tomorrow.decisions) > 100


def test_a_trial_without_budget_says_why_it_draws_nobody(settings: Settings) -> None:
    whole = CAMPAIGN.exploration.model_copy(update={"max_spend_share": 0.0})
    campaign = CAMPAIGN.model_copy(update={"exploration": whole})
    trial = run_trial(campaign, units(100), None, settings, share=1.0, now=NOW)
    assert trial.decisions.empty
    assert "the period's exploration budget is spent" in trial.summary


def test_a_trial_that_nobody_ran_teaches_nothing(settings: Settings) -> None:
    """Without it, every unit of a forgotten trial would count as 'nothing happened'."""
    trial = run_trial(CAMPAIGN, units(5_000), None, settings, share=1.0, now=NOW)
    later = NOW + timedelta(days=3)
    assert store(settings).decisions_frame(CAMPAIGN, now=later).empty
    heard = trial.decisions["decision_id"].iloc[0]
    store(settings).record_outcomes([OutcomeRecord(heard, "login", 1.0, NOW)])
    frame = store(settings).decisions_frame(CAMPAIGN, now=later)
    assert len(frame) == len(trial.decisions)
    assert frame["login"].sum() == 1


def test_it_is_learned_from_as_a_randomized_trial(settings: Settings) -> None:
    trial = run_trial(CAMPAIGN, units(3_000), None, settings, share=1.0, now=NOW)
    given = trial.decisions
    records = [OutcomeRecord(one, "login", 0.0, NOW) for one in given["decision_id"]]
    store(settings).record_outcomes(records)
    frame = store(settings).decisions_frame(CAMPAIGN, now=NOW + timedelta(hours=1))
    assert frame["explored"].all()
    assert frame["explored_propensity"].eq(1 / 3).all()
    joined = frame.set_index("decision_id").loc[given["decision_id"]]
    assert joined["arm"].tolist() == given["arm"].tolist()
    pd.testing.assert_series_equal(
        joined["games"].reset_index(drop=True), given["games"], check_names=False
    )


def test_power_is_reported_from_what_control_looks_like(settings: Settings) -> None:
    rng = np.random.default_rng(0)
    arm = rng.integers(0, 3, 3_000)
    history = pd.DataFrame(
        {
            "explored": True,
            "holdout": False,
            "arm": arm,
            "explored_propensity": 1 / 3,
            "login": np.where(arm == 0, rng.random(3_000) < 0.2, rng.random(3_000) < 0.9).astype(
                float
            ),
        }
    )
    trial = run_trial(CAMPAIGN, units(2_000), history, settings, share=1.0, now=NOW)
    assert {row["arm"] for row in trial.power} == {"coins", "skin"}
    assert trial.power[0]["mean"] == pytest.approx(0.2, abs=0.03)
    assert trial.power[0]["detectable_effect"] > 0


def test_strata_must_be_categorical_features(settings: Settings) -> None:
    with pytest.raises(
        CampaignError, match="'games' is no categorical feature; choose from 'device'"
    ):
        run_trial(CAMPAIGN, units(100), None, settings, share=1.0, stratify_by="games", now=NOW)
