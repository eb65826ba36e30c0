"""An evaluation: effects right in size or not, and what could be hidden behind them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.spec import Campaign
from campaigns.worlds import world
from models.hidden_confounding import DESIGN, ESTIMATE, POLICY, hidden_confounding
from models.metrics import IsotonicUplift, sensitivity
from models.report.data import read_as
from models.split import TEST, folds
from models.uplift_deciles import Deciles, uplift_deciles
from models.uplift_evaluation import UpliftEvaluation, evaluate_uplift

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
ROWS = 12_000


def trial(seed: int, rows: int = ROWS):
    """Outcomes of three arms given at random, and the true expected ones [N, 3]."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.5, 0.3, 0.2])
    effect = rng.uniform(0, 0.4, rows)
    truth = np.column_stack([np.full(rows, 0.3), 0.3 + effect, np.full(rows, 0.5)])
    arm = rng.choice(3, rows, p=shares)
    y = (rng.random(rows) < truth[np.arange(rows), arm]).astype(float)
    return y, arm, shares[arm], truth


def tenths(answers: np.ndarray, y: np.ndarray, arm: np.ndarray, propensity: np.ndarray):
    return uplift_deciles(
        "coins", "visit", y, answers, arm, propensity, treated=1, confidence=0.95, seed=0
    )


def test_the_truth_is_right_in_size() -> None:
    y, arm, propensity, truth = trial(0)
    found, row = tenths(truth, y, arm, propensity)
    assert row.metric == "calibration_error"
    assert row.interval.low == 0
    assert row.interval.estimate < 0.03
    assert (row.treated, row.control) == ((arm == 1).sum(), (arm == 0).sum())
    inside = np.array(found.low) <= np.array(found.predicted)
    inside &= np.array(found.predicted) <= np.array(found.high)
    assert inside.sum() >= 8  # of ten 95% intervals


def test_effects_twice_too_large_are_found_and_mapped_back() -> None:
    y, arm, propensity, truth = trial(1)
    answers = truth.copy()
    answers[:, 1] += truth[:, 1] - truth[:, 0]
    found, row = tenths(answers, y, arm, propensity)
    effect = truth[:, 1] - truth[:, 0]
    assert row.interval.estimate == pytest.approx(np.sqrt(np.mean(effect**2)), abs=0.03)
    assert row.interval.low > 0.1
    mapped = IsotonicUplift(np.array(found.map_from), np.array(found.map_to)).apply(2 * effect)
    assert np.sqrt(np.mean((mapped - effect) ** 2)) < 0.05
    assert np.all(np.diff(found.map_to) >= 0)


def frame_of(campaign: Campaign, rows: int, seed: int = 3) -> pd.DataFrame:
    return decision_frame(world("game_bonus").log(rows, seed=seed), campaign, "world")


def test_random_draws_leave_nothing_to_hide() -> None:
    frame = frame_of(GAME, 500)
    found = hidden_confounding(frame, GAME)
    assert (found.source, found.rows, found.effects) == (DESIGN, 500, [])
    assert "no hidden confounding" in found.basis
    held = frame.assign(holdout=True, explored=False)  # control by rule
    assert hidden_confounding(held, GAME).source == DESIGN


def test_shares_in_the_place_of_propensities_are_asked() -> None:
    guessed = GAME.model_copy(update={"propensity": "estimate"})
    rows = 3000
    frame = frame_of(guessed, rows)
    found = hidden_confounding(frame, guessed)
    assert (found.source, found.rows) == (ESTIMATE, rows)
    assert [(each.arm, each.outcome) for each in found.effects] == [
        (arm, outcome) for arm in ("coins", "skin") for outcome in GAME.outcomes
    ]
    first = next(iter(GAME.outcomes))
    alone = sensitivity(
        frame[first], frame["arm"], frame["propensity"], treated=2, replicates=100, confidence=0.95
    )
    asked = next(each for each in found.effects if (each.arm, each.outcome) == ("skin", first))
    assert asked.found == alone


def test_a_policy_s_choices_count_unless_they_were_certain() -> None:
    rows = 2000
    frame = frame_of(GAME, rows)
    chosen = np.arange(rows) % 2 == 0
    frame.loc[chosen, ["explored", "explored_propensity"]] = [False, np.nan]
    frame.loc[np.arange(rows) % 10 == 0, "propensity"] = 1.0
    found = hidden_confounding(frame, GAME)
    assert (found.source, found.rows) == (POLICY, rows - rows // 10)
    assert len(found.effects) == 2 * len(GAME.outcomes)
    assert all(np.isfinite(each.found.effect.low) for each in found.effects)


def test_each_finding_is_a_sentence() -> None:
    rng = np.random.default_rng(0)
    arm = np.arange(4000) % 2
    sentences = {}
    for name, lift in (("none", 0.0), ("some", 0.2), ("all", 0.5)):
        table = pd.DataFrame(
            {
                "player_id": np.arange(4000),
                "event_timestamp": pd.Timestamp("2026-01-01", tz="UTC"),
                "bonus": np.array(["none", "coins"])[arm],
                **dict.fromkeys(GAME.features.numeric, 0.5),
                **dict.fromkeys(GAME.features.categorical, "a"),
                **dict.fromkeys(GAME.outcomes, rng.random(4000) < 0.5 * (lift < 0.5) + lift * arm),
            }
        )
        table[list(GAME.outcomes)] = table[list(GAME.outcomes)].astype(float)
        if lift == 0.5:  # the arm decides the outcome: no weights can undo it
            for outcome in GAME.outcomes:
                table[outcome] = arm.astype(float)
        guessed = GAME.model_copy(update={"propensity": "estimate"})
        found = hidden_confounding(decision_frame(table, guessed, "t"), guessed)
        sentences[name] = found.effects[0].sentence
    assert sentences["none"] == "The effect may be 0 even without a hidden confounder."
    assert sentences["all"] == (
        "No hidden confounder of any strength that was tried explains the effect away."
    )
    assert sentences["some"].startswith("Something hidden would have to change a unit's odds")
    assert sentences["some"].endswith("(E-value).")


@dataclass(frozen=True)
class Known:
    """A model that knows the truth of the simulated world."""

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return world("game_bonus").truth(rows)[:, :, : len(GAME.outcomes)]


def test_an_evaluation_carries_both_as_numbers() -> None:
    guessed = GAME.model_copy(update={"propensity": "estimate"})
    frame = frame_of(guessed, 6000)
    found = evaluate_uplift(Known(), frame, guessed)
    count = int((folds(frame["unit_id"], guessed.name) == TEST).sum())
    assert found.rows == found.confounding.rows == count
    errors = [row for row in found.table if row.metric == "calibration_error"]
    assert len(errors) == len(found.deciles) == 2 * len(GAME.outcomes)
    assert all(row.interval.low <= row.interval.estimate <= row.interval.high for row in errors)
    assert "calibration_error.coins.login_next_day" in found.estimates
    saved = json.loads(found.to_json())
    assert read_as(UpliftEvaluation, saved) == found
    del saved["confounding"]  # a file of an earlier version
    for each in saved["deciles"]:
        del each["map_from"], each["map_to"]
    older = read_as(UpliftEvaluation, saved)
    assert older.confounding is None
    assert isinstance(older.deciles[0], Deciles)
    assert older.deciles[0].map_from == []
