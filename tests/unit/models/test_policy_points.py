"""What a greedy spend buys: the policy curve on a grid of budgets, with its band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import realised
from campaigns.worlds import world
from models.metrics import mcmv_aucc, policy_curve
from models.policy_points import POINTS, policy_points

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
WORLD = world("game_bonus")
FRAME = decision_frame(WORLD.log(6000, seed=8), GAME, "world")
TRUTH = WORLD.truth(FRAME)[:, :, [WORLD.outcomes.index(name) for name in GAME.outcomes]]
VALUE = (TRUTH - TRUTH[:, :1]) @ GAME.values
COST = GAME.arm_table.costs


def test_the_points_lie_on_the_policy_curve() -> None:
    found = policy_points(VALUE, COST, FRAME, GAME)
    worth, _ = realised(FRAME[list(GAME.outcomes)].to_numpy(float), FRAME["arm"].to_numpy(), GAME)
    log = VALUE, COST, worth, FRAME["arm"]
    curve = policy_curve(*log, propensity=FRAME["explored_propensity"])
    assert len(found.cost) == POINTS
    assert (found.cost[0], found.value[0]) == (0, 0)
    assert found.cost[-1] == pytest.approx(curve.cost[-1])
    for budget, value, low, high in zip(found.cost, found.value, found.low, found.high):
        assert value == pytest.approx(curve.value_at(budget))
        assert low <= value <= high
    alone = mcmv_aucc(*log, propensity=FRAME["explored_propensity"])
    assert found.aucc.estimate == pytest.approx(alone.estimate)
    assert found.aucc.low > 0.5  # the truth is better than a random order


def test_the_band_holds_the_truth() -> None:
    """What the greedy path truly buys: the mean value of those whom each budget reaches."""
    found = policy_points(VALUE, COST, FRAME, GAME)
    ratio = VALUE[:, 1:] / COST[1:]
    arm = ratio.argmax(axis=1) + 1
    order = np.argsort(-ratio.max(axis=1), kind="stable")
    rows = np.arange(len(order))
    bought = np.append(0, np.cumsum(VALUE[rows, arm][order])) / len(order)
    paid = np.append(0, np.cumsum(COST[arm][order])) / len(order)
    truth = np.interp(np.array(found.cost) * paid[-1] / found.cost[-1], paid, bought)
    inside = (np.array(found.low) <= truth) & (truth <= np.array(found.high))
    assert inside.mean() > 0.7  # of 95% intervals that share their rows


def test_where_it_is_not_defined_there_is_none() -> None:
    assert policy_points(VALUE, COST * 0, FRAME, GAME) is None  # nothing to spend
    control = FRAME["arm"].to_numpy() == 0
    assert policy_points(VALUE[control], COST, FRAME[control], GAME) is None
    assert policy_points(VALUE[~control], COST, FRAME[~control], GAME) is None
    lost = FRAME.assign(**dict.fromkeys(GAME.outcomes, np.nan))
    assert policy_points(VALUE, COST, lost, GAME) is None
