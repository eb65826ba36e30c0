"""The world whose treatment is a dose: its truth, its trial, and the campaign that reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import campaigns
from campaigns.errors import CampaignError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import value_and_cost
from campaigns.worlds import World, world

CAMPAIGN = load_campaign(Path(campaigns.__file__).with_name("discount.yaml"))
N = 20_000


@pytest.fixture(scope="module")
def shop() -> World:
    return world("discount")


@pytest.fixture(scope="module")
def log(shop: World) -> pd.DataFrame:
    return shop.log(N, seed=7)


def test_the_same_seed_gives_the_same_log_and_a_shopper_whatever_how_many(shop: World) -> None:
    first, again, other = (shop.log(500, seed=s) for s in (7, 7, 8))
    pd.testing.assert_frame_equal(first, again)
    assert not set(first["shopper_id"]) & set(other["shopper_id"])
    few, many = (shop.units(n, seed=5, day=3) for n in (40, 90))
    pd.testing.assert_frame_equal(few, many.head(40))


def test_more_never_sells_less_and_each_step_sells_less_than_the_one_before(shop: World) -> None:
    truth = shop.truth(shop.units(5_000, seed=3))
    steps = np.diff(truth, axis=1)
    assert (steps >= 0).all()
    inside = (truth[..., 0] > 0.01) & (truth[..., 0] < 0.99)
    concave = np.diff(steps[..., 0], axis=1) <= 1e-12
    assert concave[inside.all(1)].all()
    rise = (truth[:, 2, 0] - truth[:, 0, 0]) / (truth[:, -1, 0] - truth[:, 0, 0])
    assert np.quantile(rise, 0.9) - np.quantile(rise, 0.1) > 0.2, (
        "units differ in the curve's shape"
    )
    effect = truth[:, -1] - truth[:, 0]
    assert (effect.std(axis=0) > 0.4 * effect.mean(axis=0)).all(), "and in its size"


def test_outcomes_are_drawn_around_the_truth(shop: World, log: pd.DataFrame) -> None:
    arm = np.array([shop.arms.index(given) for given in log["discount"]])
    expected = shop.truth(log)[np.arange(N), arm]
    drawn = log[list(shop.outcomes)].to_numpy()
    error = (drawn - expected).mean(axis=0) / (drawn.std(axis=0) / np.sqrt(N))
    assert (np.abs(error) < 4).all()
    assert (drawn[:, 1] > 0).tolist() == (drawn[:, 0] > 0).tolist()
    units = shop.units(200, seed=1)
    same = [shop.respond(units, np.full(200, arm), seed=4)[:, 0] for arm in (0, 6)]
    assert (same[0] <= same[1]).all(), "the same luck"


def test_the_campaign_reads_it_and_no_dose_is_best_for_everyone(
    shop: World, log: pd.DataFrame
) -> None:
    assert CAMPAIGN.arm_table.names == shop.arms
    frame = decision_frame(log, CAMPAIGN, "log")
    assert frame["discount"].tolist() == log["discount"].astype(float).tolist()
    counts = np.bincount(frame["arm"], minlength=7)
    assert (np.abs(counts - N / 7) < 4 * np.sqrt(N / 7)).all()
    value, cost = value_and_cost(shop.truth(log), CAMPAIGN)
    best = np.bincount((value - cost).argmax(axis=1), minlength=7) / N
    assert (best < 0.7).all()
    assert (best > 0.02).sum() >= 4


def test_steps_are_checked() -> None:
    assert world("discount", steps=4).arms == ("0", "10", "20", "30")
    for steps in (1, 2.5, float("nan")):
        with pytest.raises(CampaignError, match="give a whole number from 2 to 100"):
            world("discount", steps=steps)
