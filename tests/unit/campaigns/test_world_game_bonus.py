from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import campaigns
from campaigns.errors import CampaignError, DataError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.worlds import World, world

N = 40_000
VALUES, COSTS = np.array([1.0, 2.0, 0.0]), np.array([0.0, 0.30, 0.55])
CAMPAIGN = Path(campaigns.__file__).with_name("game_bonus.yaml")


@pytest.fixture(scope="module")
def game() -> World:
    return world("game_bonus")


@pytest.fixture(scope="module")
def log(game: World) -> pd.DataFrame:
    return game.log(N, seed=7)


@pytest.fixture(scope="module")
def players(game: World) -> pd.DataFrame:
    return game.units(N, seed=11, day=3)


@pytest.fixture(scope="module")
def uplift(game: World, players: pd.DataFrame) -> np.ndarray:
    truth = game.truth(players)
    return truth - truth[:, :1]


@pytest.fixture(scope="module")
def worth(uplift: np.ndarray) -> np.ndarray:
    return uplift @ VALUES


# Same seed, same numbers; a player stays the same player.


def test_same_seed_gives_the_same_log_and_another_seed_another(game: World) -> None:
    first, again, other = (game.log(2_000, seed=s) for s in (7, 7, 8))
    pd.testing.assert_frame_equal(first, again)
    assert not set(first["player_id"]) & set(other["player_id"])
    assert not np.array_equal(first["bonus"], other["bonus"])


def test_a_later_period_of_the_same_seed_is_drawn_anew(game: World) -> None:
    first, later = (game.log(2_000, seed=7, first_day=day) for day in (0, 28))
    assert later["event_timestamp"].min() > first["event_timestamp"].max()
    assert not set(first["decision_id"]) & set(later["decision_id"])
    assert not np.array_equal(first["bonus"], later["bonus"])


@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 300), more=st.integers(0, 300), day=st.integers(0, 400))
def test_a_player_does_not_depend_on_how_many_are_asked_for(n: int, more: int, day: int) -> None:
    game = world("game_bonus")
    few, many = (game.units(count, seed=5, day=day) for count in (n, n + more))
    pd.testing.assert_frame_equal(few, many.head(n))


def test_a_player_has_one_identity_whose_features_move_slowly(game: World) -> None:
    today, tomorrow, later = (game.units(N, seed=5, day=day) for day in (10, 11, 38))
    for column in ("player_id", "device", "region", "channel", "skins_owned", "friends"):
        pd.testing.assert_series_equal(today[column], later[column])
    sessions = [np.log1p(frame["sessions_30d"]) for frame in (today, tomorrow, later)]
    assert np.corrcoef(sessions[0], sessions[1])[0, 1] > 0.95
    assert 0.7 < np.corrcoef(sessions[0], sessions[2])[0, 1] < 0.95
    assert (tomorrow["tenure_days"] - today["tenure_days"]).median() == 1


def test_the_log_shows_the_same_players_as_units_on_that_day(
    game: World, log: pd.DataFrame
) -> None:
    day = (log["event_timestamp"] - log["event_timestamp"].min()).dt.days == 5
    seen = log[day].set_index("player_id")
    features = [*game.numeric, *game.categorical]
    units = game.units(N, seed=7, day=5).set_index("player_id").loc[seen.index]
    pd.testing.assert_frame_equal(seen[features], units[features])


# The log is a uniform randomized trial.


def test_the_trial_is_balanced_and_says_its_propensity(game: World, log: pd.DataFrame) -> None:
    counts = log["bonus"].value_counts().loc[list(game.arms)].to_numpy()
    chi2 = ((counts - N / 3) ** 2 / (N / 3)).sum()
    assert chi2 < 13.8  # p = 0.001 at two degrees of freedom
    assert (log["propensity"] == 1 / 3).all()
    assert log["explored"].all()
    for column in game.numeric:
        groups = log.groupby("bonus")[column]
        z = (groups.get_group("skin").mean() - groups.get_group("none").mean()) / (
            groups.get_group("none").std() * np.sqrt(2 / (N / 3))
        )
        assert abs(z) < 4, column


def test_timestamps_are_utc_microseconds_in_order_and_one_a_player_a_day(log: pd.DataFrame) -> None:
    times = log["event_timestamp"]
    assert str(times.dtype) == "datetime64[us, UTC]"
    assert times.is_monotonic_increasing
    assert times.iloc[0] >= datetime(2026, 1, 1, tzinfo=UTC)
    assert times.iloc[-1] < datetime(2026, 1, 29, tzinfo=UTC)
    day = times.dt.floor("D")
    assert not pd.DataFrame({"player": log["player_id"], "day": day}).duplicated().any()
    assert day.value_counts().max() - day.value_counts().min() <= 1
    assert log["player_id"].value_counts().mean() > 2  # players come again


def test_decision_ids_are_uuid7_of_their_moment(log: pd.DataFrame) -> None:
    assert log["decision_id"].is_unique
    for text, moment in zip(log["decision_id"][:50], log["event_timestamp"][:50]):
        parsed = uuid.UUID(text)
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122
        assert parsed.int >> 80 == int(moment.timestamp() * 1000)


def test_missing_values_come_at_a_realistic_rate(log: pd.DataFrame) -> None:
    missing = log.isna().mean()
    assert (
        missing[["win_rate_7d", "session_minutes", "friends", "region", "channel"]]
        .between(0.01, 0.20)
        .all()
    )
    assert log.loc[log["games_7d"] == 0, "win_rate_7d"].isna().all()
    assert missing[["device", "bonus", "login_next_day", "reward_spend"]].sum() == 0


def test_the_example_campaign_reads_the_log(log: pd.DataFrame) -> None:
    campaign = load_campaign(CAMPAIGN)
    frame = decision_frame(log, campaign, "log")
    assert tuple(campaign.arm_table.names) == world("game_bonus").arms
    assert campaign.arm_table.costs == pytest.approx(COSTS)
    assert campaign.values == pytest.approx(VALUES[:2])
    assert log["reward_spend"].to_numpy() == pytest.approx(COSTS[frame["arm"]])
    treatable = campaign.budget.amount * 28 / 120_000 / COSTS[1]
    assert 0.2 < treatable < 0.3  # the budget binds


# The truth.


def test_truth_is_the_mean_of_the_draws(game: World, players: pd.DataFrame) -> None:
    few = players.head(300)
    for arm in range(3):
        drawn = np.mean([game.respond(few, np.full(300, arm), seed=s) for s in range(400)], axis=0)
        expected = game.truth(few)[:, arm]
        error = (drawn - expected)[:, :2] / np.sqrt(expected * (1 - expected) / 400)[:, :2]
        assert abs(error.mean()) < 0.15
        assert error.std() == pytest.approx(1, abs=0.1)
        assert drawn[:, 2] == pytest.approx(expected[:, 2])


def test_the_log_recovers_the_mean_effects(game: World, log: pd.DataFrame) -> None:
    truth = game.truth(log).mean(axis=0)
    means = log.groupby("bonus")[list(game.outcomes)].mean().loc[list(game.arms)].to_numpy()
    assert means == pytest.approx(truth, abs=0.016)  # 3.7 standard errors


def test_the_same_luck_answers_whatever_the_arm(game: World, players: pd.DataFrame) -> None:
    few = players.head(5_000)
    none, coins = (game.respond(few, np.full(5_000, arm), seed=1)[:, 0] for arm in (0, 1))
    tau = game.truth(few)[:, 1, 0] - game.truth(few)[:, 0, 0]
    assert (coins >= none)[tau > 0].all()
    assert (coins <= none)[tau < 0].all()


def test_outcomes_correlate_beyond_the_features(game: World, players: pd.DataFrame) -> None:
    arm = np.zeros(N, dtype=int)
    rest = game.respond(players, arm, seed=1) - game.truth(players)[:, 0]
    assert np.corrcoef(rest[:, 0], rest[:, 1])[0, 1] > 0.1


def test_any_bonus_matters_much_more_than_which(worth: np.ndarray) -> None:
    base = worth[:, 1:].mean(axis=1)
    difference = worth[:, 2] - worth[:, 1]
    assert np.abs(base).mean() > 3 * np.abs(difference).mean()
    assert base.mean() > 3 * difference.mean() > 0


def test_low_active_players_respond_more_and_more_to_the_dearer_bonus(
    players: pd.DataFrame, worth: np.ndarray
) -> None:
    low, high = players["games_7d"] <= 1, players["games_7d"] >= 10
    assert worth[low, 1].mean() > 5 * worth[high, 1].mean()
    difference = worth[:, 2] - worth[:, 1]
    assert difference[low].mean() > 0.08 > 0.02 > difference[high].mean()


def test_some_players_are_hurt_by_a_bonus(players: pd.DataFrame, worth: np.ndarray) -> None:
    hurt = (worth[:, 1:] < 0).all(axis=1)
    assert 0.03 < hurt.mean() < 0.15
    crowded = (players["spend_90d"] > 30) & (players["win_rate_7d"] > 0.6)
    assert hurt[crowded].mean() > 0.6
    assert worth.min() > -0.6


def test_knowing_whom_to_treat_is_worth_far_more_than_any_constant(worth: np.ndarray) -> None:
    budget = 0.08
    net = worth - COSTS
    price = 1.66  # the multiplier at which the best policy spends the budget
    best = (worth - price * COSTS).argmax(axis=1)
    rows = np.arange(N)
    assert COSTS[best].mean() == pytest.approx(budget, abs=0.005)
    oracle = net[rows, best].mean()
    rationed = [net[:, arm].mean() * budget / COSTS[arm] for arm in (1, 2)]
    assert oracle > 0.08
    assert oracle > 5 * max(0.0, *rationed)
    assert set(best) == {0, 1, 2}  # both bonuses have their players


# Drift.


def test_without_drift_the_world_stands_still(game: World, players: pd.DataFrame) -> None:
    assert np.array_equal(game.truth(players, day=0), game.truth(players, day=300))
    early, late = (game.units(N, seed=5, day=day) for day in (0, 60))
    for column in game.numeric:
        a, b = np.log1p(early[column].dropna()), np.log1p(late[column].dropna())
        assert abs(a.mean() - b.mean()) < 0.03 * a.std(), column


def test_covariate_drift_moves_the_features_and_not_the_effects(
    game: World, players: pd.DataFrame
) -> None:
    drifting = world("game_bonus", covariate_drift=0.03)
    pd.testing.assert_frame_equal(drifting.units(500, seed=5), game.units(500, seed=5))
    still, moved = (w.units(N, seed=5, day=28) for w in (game, drifting))
    assert moved["games_7d"].mean() < 0.7 * still["games_7d"].mean()
    assert moved["days_since_login"].mean() > 1.5 * still["days_since_login"].mean()
    mobile = [frame["device"].isin(["android", "ios"]).mean() for frame in (still, moved)]
    assert mobile[1] > mobile[0] + 0.1
    pd.testing.assert_series_equal(still["skins_owned"], moved["skins_owned"])
    assert np.array_equal(game.truth(players), drifting.truth(players, day=28))


def test_effect_drift_turns_the_effects_and_not_the_features(
    game: World, players: pd.DataFrame
) -> None:
    turning = world("game_bonus", effect_drift=np.pi / 28)
    pd.testing.assert_frame_equal(turning.units(500, seed=5, day=9), game.units(500, seed=5, day=9))
    start, end = turning.truth(players, day=0), turning.truth(players, day=28)
    assert np.array_equal(start, game.truth(players))
    assert np.array_equal(start[:, 0], end[:, 0])  # without a bonus nothing changes
    difference = [(t @ VALUES)[:, 2] - (t @ VALUES)[:, 1] for t in (start, end)]
    assert np.corrcoef(*difference)[0, 1] < -0.9


def test_each_row_of_a_log_responds_as_on_its_own_day(players: pd.DataFrame) -> None:
    turning = world("game_bonus", effect_drift=0.05)
    day = np.arange(len(players)) % 40
    rows = players.head(400)
    together = turning.truth(rows, day=day[:400])
    alone = [turning.truth(rows.iloc[[i]], day=int(day[i]))[0] for i in range(400)]
    assert together == pytest.approx(np.array(alone))


# Mistakes.


def test_an_unknown_world_or_option_is_told_the_choices() -> None:
    with pytest.raises(CampaignError, match="'gambling' does not exist; choose from 'game_bonus'"):
        world("gambling")
    with pytest.raises(CampaignError, match="'drift'; .* 'covariate_drift' or 'effect_drift'"):
        world("game_bonus", drift=0.1)
    with pytest.raises(CampaignError, match="effect_drift is nan"):
        world("game_bonus", effect_drift=float("nan"))


def test_wrong_numbers_and_frames_are_refused(game: World, players: pd.DataFrame) -> None:
    with pytest.raises(CampaignError, match="rows is 0; it must be at least 1"):
        game.log(0, seed=1)
    with pytest.raises(CampaignError, match="seed is -1; it must be at least 0"):
        game.units(5, seed=-1)
    with pytest.raises(CampaignError, match="without a time zone"):
        game.log(10, seed=1, start=datetime(2026, 1, 1))
    with pytest.raises(DataError, match="'friends' missing"):
        game.truth(players.drop(columns="friends"))
    with pytest.raises(DataError, match="arms are 0 to 2"):
        game.respond(players.head(2), np.array([0, 3]), seed=1)
    with pytest.raises(DataError, match="one integer for each of 2 units"):
        game.respond(players.head(2), np.array([0.0, 1.0]), seed=1)
