"""Drafting a campaign file from a table: right guesses, honest placeholders, helpful refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.datasets import hillstrom
from campaigns.drafting import draft_campaign
from campaigns.errors import CampaignError, DataError
from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.spec import Campaign
from campaigns.worlds import world

N = 200


def table(**changes: Any) -> pd.DataFrame:
    """A small good log; a change of None drops the column."""
    rng = np.random.default_rng(5)
    columns: dict[str, Any] = {
        "player_id": rng.integers(0, 80, N),
        "at": pd.date_range("2026-01-01", periods=N, freq="h", tz="UTC"),
        "games": rng.poisson(3, N),
        "device": rng.choice(["ios", "web"], N),
        "bonus": rng.choice(["none", "coins"], N),
        "visit": rng.integers(0, 2, N),
    }
    return pd.DataFrame({k: v for k, v in {**columns, **changes}.items() if v is not None})


def drafted(frame: pd.DataFrame, path: str = "log.parquet", **asked: Any) -> Campaign:
    return parse_campaign(draft_campaign("mine", frame, path, **asked))


def refusal(frame: pd.DataFrame, **asked: Any) -> str:
    with pytest.raises(DataError) as caught:
        draft_campaign("mine", frame, "log.csv", **asked)
    return str(caught.value)


def test_the_game_log_drafts_to_the_game_campaign() -> None:
    log = world("game_bonus").log(5000, seed=1)
    text = draft_campaign("my_game", log, "log.parquet")
    campaign = parse_campaign(text)
    assert (campaign.unit, campaign.timestamp) == ("player_id", "event_timestamp")
    assert campaign.propensity == "propensity"
    assert campaign.arm_table.names == ("none", "coins", "skin")
    assert campaign.arm_table.costs.tolist() == [0.0, 0.30, 0.55]  # told by reward_spend
    assert list(campaign.outcomes) == ["login_next_day", "plays_more_7d"]
    assert all(outcome.kind == "binary" for outcome in campaign.outcomes.values())
    game = world("game_bonus")
    assert set(campaign.features.numeric) == set(game.numeric)
    assert set(campaign.features.categorical) == set(game.categorical)
    frame = decision_frame(log, campaign, "log.parquet")
    assert frame["explored"].all()
    assert len(frame) == 5000
    marked = [line for line in text.splitlines() if line.startswith("# CHANGE:")]
    assert len(marked) == 3  # what only the user knows: the words, the values and the budget


def test_hillstrom_drafts_to_its_three_arms(shared_data: Path, tmp_path: Path) -> None:
    path = hillstrom.prepare(shared_data / "hillstrom" / "hillstrom.csv", tmp_path / "h.parquet")
    log = pd.read_parquet(path)
    text = draft_campaign("mails", log, "h.parquet")
    campaign = parse_campaign(text)
    assert campaign.unit == "customer_id"
    assert campaign.arm_table.names == ("none", "mens", "womens")
    assert {name: o.kind for name, o in campaign.outcomes.items()} == {
        "visit": "binary",
        "conversion": "binary",
        "spend": "continuous",
    }
    assert {name: o.value for name, o in campaign.outcomes.items()} == {
        "visit": 0.0,
        "conversion": 0.0,
        "spend": 1.0,
    }
    assert set(campaign.features.categorical) == set(hillstrom.CATEGORICAL)
    assert "# sequence: [visit, conversion]" in text
    assert len(decision_frame(log, campaign, "h.parquet")) == hillstrom.ROWS


def test_hillstrom_as_published_lacks_ids_and_dates_and_is_told_so(shared_data: Path) -> None:
    raw = pd.read_csv(shared_data / "hillstrom" / "hillstrom.csv")
    told = refusal(raw)
    assert "--unit" in told
    assert "--timestamp" in told
    assert "--treatment" not in told
    raw["row"] = range(len(raw))
    raw["day"] = "2008-03-01T00:00:00Z"
    campaign = drafted(raw, "raw.csv")
    assert campaign.source.kind == "csv"
    assert campaign.arm_table.names[0] == "No E-Mail"
    assert campaign.propensity == "uniform"
    assert len(decision_frame(raw, campaign, "raw.csv")) == len(raw)


def test_odd_names_survive() -> None:
    names = {
        "games": 'a "b": #c',
        "device": "no",
        "player_id": "Käufer ID",
        "bonus": "Offer: (A/B)",
    }
    frame = table().rename(columns=names)
    campaign = drafted(frame, "my log: #1.csv", unit="Käufer ID")
    assert campaign.features.numeric == ['a "b": #c']
    assert campaign.features.categorical == ["no"]
    assert campaign.treatments["offer_a_b"].column == "Offer: (A/B)"
    assert campaign.source.path == "my log: #1.csv"
    decision_frame(frame, campaign, "log")


@settings(max_examples=60, deadline=None)
@given(name=st.text(min_size=1, max_size=12), level=st.text(max_size=8))
def test_any_feature_name_and_any_level_reads_back(name: str, level: str) -> None:
    frame = table()
    if name in frame.columns:
        return
    frame[f"x {name}"] = np.arange(N) / 7
    frame.loc[3, "bonus"] = level
    campaign = drafted(frame, treatment="bonus", outcomes=["visit"])
    assert f"x {name}" in campaign.features.numeric
    assert set(campaign.treatments["bonus"].levels) == set(frame["bonus"])
    decision_frame(frame, campaign, "log")


@pytest.mark.parametrize(
    ("levels", "control"),
    [
        (["coins", "control"], "control"),
        (["A", "No E-Mail"], "No E-Mail"),
        ([0, 1], "0"),
        ([0.0, 0.5], "0.0"),
        ([True, False], "False"),
        (["b", "a", "b"], "b"),  # the most frequent
    ],
)
def test_control_is_found_by_name_or_else_by_frequency(levels: list[Any], control: str) -> None:
    frame = table(treatment=np.resize(levels, N), bonus=None)
    campaign = drafted(frame)
    assert campaign.arm_table.names[0] == control
    decision_frame(frame, campaign, "log")


def test_what_was_asked_for_is_taken() -> None:
    frame = table(colour=np.resize(["red", "blue"], N), converted=np.resize([0, 0, 1], N))
    campaign = drafted(
        frame, treatment="colour", control="red", outcomes=["converted"], unit="games"
    )
    assert campaign.unit == "games"
    assert campaign.arm_table.names == ("red", "blue")
    assert list(campaign.outcomes) == ["converted"]
    assert "visit" not in campaign.features.names  # an outcome that was not wanted is no feature
    assert "bonus" in campaign.features.categorical


def test_two_equal_treatments_are_two_factors_and_a_lesser_one_is_a_feature() -> None:
    rng = np.random.default_rng(1)
    frame = table(email=rng.choice(["no", "yes"], N), email_opt_in=rng.integers(0, 2, N))
    campaign = drafted(frame)
    assert list(campaign.treatments) == ["bonus", "email"]
    assert len(campaign.arm_table) == 4
    assert "email_opt_in" in campaign.features.numeric
    decision_frame(frame, campaign, "log")


def test_the_past_is_a_feature_and_what_follows_the_treatment_an_outcome() -> None:
    frame = table()
    frame.insert(2, "days_since_visit", np.arange(N) % 30)
    frame.insert(2, "spend_90d", np.arange(N) % 50)
    frame["revenue_30d"] = np.arange(N) % 9 * 1.5
    frame["orders"] = np.arange(N) % 4
    campaign = drafted(frame)
    assert {n: o.kind for n, o in campaign.outcomes.items()} == {
        "visit": "binary",
        "revenue_30d": "continuous",
        "orders": "count",
    }
    assert {"days_since_visit", "spend_90d"} <= set(campaign.features.numeric)


def test_useless_columns_are_left_out_and_the_text_says_why() -> None:
    frame = table(
        constant=1,
        empty=np.nan,
        note=[f"note {i}" for i in range(N)],
        signup_date=pd.date_range("2020-01-01", periods=N),
        tags=[["a"]] * N,
        endless=np.resize([1.0, np.inf, 2.0], N),
        purchased=np.resize(["yes", "no"], N),
    )
    text = draft_campaign("mine", frame, "log.parquet")
    assert parse_campaign(text).features.names == ["games", "device"]
    for line in (
        "#   constant: never changes",
        "#   empty: is empty",
        "#   note: has 200 different values, like an id or free text",
        "#   signup_date: holds times",
        "#   tags: holds lists",
        "#   endless: holds infinite values",
        "#   purchased: looks like an outcome, but holds words",
    ):
        assert line in text
    decision_frame(frame, parse_campaign(text), "log")


def test_unequal_shares_without_a_propensity_are_estimated() -> None:
    campaign = drafted(table(bonus=np.resize(["none"] * 9 + ["coins"], N)))
    assert campaign.propensity == "estimate"


def test_times_without_a_zone_are_drafted_with_a_warning() -> None:
    text = draft_campaign("mine", table(at=pd.date_range("2026-01-01", periods=N)), "log.parquet")
    assert "These times have no zone" in text
    assert parse_campaign(text).timestamp == "at"


def test_a_time_with_a_zone_is_preferred() -> None:
    frame = table(timestamp=pd.date_range("2026-01-01", periods=N).astype(str))
    assert drafted(frame).timestamp == "at"


def test_the_budget_fits_the_table() -> None:
    log = table()  # 200 decisions in 8.3 days, 1.0 each: 24 a day
    assert drafted(log).budget.amount == pytest.approx(24 / 4, abs=0.5)


@pytest.mark.parametrize(
    ("changes", "asked", "told"),
    [
        ({"bonus": None}, {}, "say which with --treatment\nthe table has 'player_id', 'at'"),
        ({"player_id": None, "games": np.ones(N)}, {}, "say which with --unit"),
        ({"at": np.arange(N)}, {}, "say which with --timestamp"),
        ({"visit": None}, {}, "say which with --outcome"),
        ({"visit": "yes"}, {}, "'visit' looks like an outcome, but holds words"),
        ({}, {"unit": "playr_id"}, "--unit playr_id: is no column; did you mean 'player_id'?"),
        ({}, {"timestamp": "games"}, "--timestamp games: holds"),
        ({}, {"control": "nothing"}, "'bonus' has no such value; choose from 'none' or 'coins'"),
        ({}, {"treatment": "visit", "outcomes": ["visit"]}, "is --treatment already"),
        ({}, {"outcomes": ["device"]}, "--outcome device: holds words"),
        ({"Spend $": np.arange(N)}, {"outcomes": ["Spend $"]}, "call it 'spend'"),
        ({"bonus": "coins"}, {"treatment": "bonus"}, "every row was given 'coins'"),
        ({"x": np.arange(N)}, {"treatment": "x"}, "holds 200 different values"),
        ({"bonus": np.resize([None, "coins", "skin"], N)}, {}, "67 rows don't say what was given"),
        ({"games": None, "device": None}, {}, "no column is left that could be a feature"),
    ],
)
def test_what_cannot_be_guessed_names_the_flag(
    changes: dict[str, Any], asked: dict[str, Any], told: str
) -> None:
    assert told in refusal(table(**changes), **asked)


def test_tables_that_are_none() -> None:
    assert "no rows" in refusal(table().head(0))
    assert "rename them" in refusal(pd.concat([table(), table()[["games"]]], axis=1))
    assert "a header must name them" in refusal(pd.DataFrame(np.ones((3, 2))))


def test_a_bad_campaign_name_is_refused() -> None:
    with pytest.raises(CampaignError, match="'My Game' is no name"):
        draft_campaign("My Game", table(), "log.csv")
