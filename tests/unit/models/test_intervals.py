"""Intervals of uplifts: around the answer, as wide as those who answer together disagree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.models.decisions import fit_model
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.worlds import world
from models.uncertainty import Intervals
from models.uplift_model import UpliftModel

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
SMALL = {"width": 4, "experts": 1, "hidden": 8, "enhancer_width": 8}
QUICK = {"epochs": 1}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return decision_frame(world("game_bonus").log(1500, seed=5), GAME, "world")


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> UpliftModel:
    config = SMALL | {"members": 3, "bootstrap": True, "trees": 2}
    return fit_model(frame, GAME, "mtmt", config, QUICK, seed=1)


def test_an_interval_lies_around_the_answer_and_grows_with_confidence(model, frame) -> None:
    outcomes = model.predict(frame)
    uplift = outcomes - outcomes[:, :1]
    narrow, wide = model.intervals(frame, 0.5), model.intervals(frame, 0.95, batch_size=400)
    for found in (narrow, wide):
        np.testing.assert_allclose((found.lower + found.upper) / 2, uplift, atol=1e-5)
        assert (found.lower[:, 0] == 0).all()
        assert (found.upper[:, 0] == 0).all()
        np.testing.assert_allclose(
            (found.value_lower + found.value_upper) / 2, uplift @ GAME.values, atol=1e-5
        )
    assert (wide.lower <= narrow.lower).all()
    assert (wide.upper[:, 1:] > narrow.upper[:, 1:]).mean() > 0.99


def test_a_models_trees_have_their_share_of_its_answer_and_are_saved_with_it(
    model, frame, tmp_path
):
    alone = replace(model, trees=None)
    with_trees = replace(model, net=model.trees, trees=None)
    mixed = alone.predict(frame) / 3 + with_trees.predict(frame) * 2 / 3
    np.testing.assert_allclose(model.predict(frame), mixed, atol=1e-6)
    model.save(tmp_path)
    loaded = UpliftModel.load(tmp_path)
    assert np.array_equal(loaded.predict(frame), model.predict(frame))
    assert np.array_equal(loaded.intervals(frame).lower, model.intervals(frame).lower)
    members = model.predict_members(frame)
    np.testing.assert_allclose(members.mean(0), model.predict(frame), atol=1e-6)


def test_a_model_that_can_not_tell_says_so(frame) -> None:
    model = fit_model(frame, GAME, "mtmt", SMALL | {"trees": 0}, QUICK, seed=1)
    assert model.intervals(frame) is None


def test_members_that_differ_more_make_wider_intervals_of_the_right_width() -> None:
    rng = np.random.default_rng(0)
    members = np.zeros((40, 5000, 3, len(GAME.outcomes)))
    members[:, :, 1:] = rng.normal(1.0, 0.5, (40, 5000, 2, len(GAME.outcomes)))
    found = Intervals.of([members], [1.0], GAME, 0.9)
    half = (found.upper - found.lower)[:, 1:].mean() / 2
    assert half == pytest.approx(1.685 * 0.5, rel=0.01)  # Student's 95% quantile, 39 degrees
    fresh = rng.normal(1.0, 0.5, found.lower[:, 1:].shape)
    held = (found.lower[:, 1:] <= fresh) & (fresh <= found.upper[:, 1:])
    assert held.mean() == pytest.approx(0.9, abs=0.02)


def test_parts_that_disagree_widen_the_interval() -> None:
    ones = np.ones((2, 10, 3, len(GAME.outcomes)))
    ones[:, :, 0] = 0.0
    ones[1] *= 1.01
    alike = Intervals.of([ones, ones], [0.5, 0.5], GAME)
    apart = Intervals.of([ones, 3 * ones], [0.5, 0.5], GAME)
    assert ((apart.upper - apart.lower)[:, 1:] > 10 * (alike.upper - alike.lower)[:, 1:]).all()


def test_a_parts_weight_is_how_much_of_it_is_in_the_interval() -> None:
    """Against a plain computation: one net that says 1, and two bags that say 3.9 and 4.1."""
    members = [np.zeros((count, 1, 3, len(GAME.outcomes))) for count in (1, 2)]
    members[0][:, :, 1:], members[1][:, :, 1:] = 1.0, np.array([3.9, 4.1])[:, None, None, None]
    found = Intervals.of(members, [1 / 3, 2 / 3], GAME, 0.9)
    middle, bags = 3.0, 0.02
    between = ((1.0 - middle) ** 2 + 2 * (4.0 - middle) ** 2) / 3
    half = stats.t.ppf(0.95, 1) * np.sqrt(bags + between)
    np.testing.assert_allclose(found.lower[:, 1:], middle - half)
    np.testing.assert_allclose(found.upper[:, 1:], middle + half)
