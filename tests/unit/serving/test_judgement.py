"""What scores are worth: held against the truth of a simulated world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import DataError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.spec import Campaign
from campaigns.worlds import world
from serving.evaluation import by_every_estimator, held_out, score_policy
from serving.judgement import judge_scores, read_scores

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
WORLD = world("game_bonus")


def frame_of(rows: int, seed: int) -> pd.DataFrame:
    return decision_frame(WORLD.log(rows, seed=seed), GAME, "log")


def true_net(frame: pd.DataFrame) -> np.ndarray:
    """What every arm truly earns, costs taken off, [N, A]."""
    columns = [WORLD.outcomes.index(name) for name in GAME.outcomes]
    return WORLD.truth(frame)[:, :, columns] @ GAME.values - GAME.arm_table.costs


def test_every_estimator_s_interval_holds_the_true_value() -> None:
    frame = frame_of(6000, 2)
    net = true_net(frame)
    log = held_out(frame, GAME, everybody=True)
    assert len(log.rows) == len(frame)
    mine = score_policy("scores", net - net[:, :1], log, GAME)
    truth = float((mine.policy * net).sum(axis=1).mean())
    assert mine.cost <= log.budget_per_unit + 1e-9
    for each in by_every_estimator(mine, log, GAME):
        if each.name != "dm":  # its interval leaves the model's own error out
            assert truth in each.value, each.name


def test_min_return_is_asked_of_worth_alone() -> None:
    frame = frame_of(300, 4)
    log = held_out(frame, GAME, everybody=True)
    cost = GAME.arm_table.costs
    scores = np.broadcast_to(cost * 0.9, (len(frame), 3))  # worth a little less than they cost
    assert GAME.budget.min_return == 1
    assert score_policy("scores", scores, log, GAME).cost > 0
    assert score_policy("scores", scores, log, GAME, worth=True).cost == 0


def test_a_judgement_says_that_its_rows_may_have_been_learned_from() -> None:
    frame = frame_of(600, 3)
    net = true_net(frame)
    scores = net - net[:, :1]
    scores[:, 2] = 0.5
    found = judge_scores(scores, frame, GAME, name="mine")
    assert not found.evaluation.held_out
    assert found.evaluation.summary.startswith("Qini (normalized) on 600 randomized rows")
    assert "look better than they are" in found.notes[0]
    assert found.notes[1] == "The scores of skin are all 0.5: they rank nobody."
    nobody, *_, mine = found.policies
    assert found.gain(nobody) is None
    assert found.gain(mine).estimate == pytest.approx(mine.value.estimate - nobody.value.estimate)


def single() -> tuple[Campaign, pd.DataFrame]:
    """A campaign with one treated arm, and its frame."""
    written = GAME.model_dump()
    del written["treatments"]["bonus"]["levels"]["skin"]
    campaign = Campaign.model_validate(written)
    log = WORLD.log(200, seed=1)
    log = log[log["bonus"] != "skin"].assign(propensity=0.5)
    return campaign, decision_frame(log, campaign, "log")


def test_scores_find_their_rows() -> None:
    campaign, frame = single()
    wanted = np.random.default_rng(0).random(len(frame))
    by_row = pd.DataFrame({"score": wanted})
    by_id = by_row.assign(decision_id=frame["decision_id"]).sample(frac=1, random_state=1)
    named = pd.DataFrame({"coins": wanted, "score": 0.0})  # the arm's own name goes first
    for table in (by_row, by_id, named):
        found = read_scores(table, frame, campaign, "t")
        assert found[:, 0].tolist() == [0.0] * len(frame)
        assert found[:, 1].tolist() == wanted.tolist()
    with pytest.raises(DataError, match=r"column 'coins' or 'skin' is missing"):
        read_scores(by_row, frame, GAME, "t")  # which arm?
