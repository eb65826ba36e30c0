"""The number that a search compares: does it know a better model from a worse one?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from campaigns.errors import DataError
from campaigns.loading import parse_campaign
from campaigns.objective import value_and_cost
from models.catalog import build
from models.data import Batch
from models.dataset import Prepared, prepare
from models.selection import Validation, judge, mean_loss, objective

CAMPAIGN = parse_campaign("""
name: sales
unit: shop
source: {kind: events}
timestamp: at
features: {numeric: [size, age], categorical: [town]}
treatments:
  visit: {column: visit, control: none, levels: {none: , call: {cost: 0.1}, tour: {cost: 0.5}}}
outcomes:
  order: {kind: continuous, value: 2.0}
  clicks: {kind: count}
budget: {amount: 10, min_return: 1.0}
""")
ROWS = 60_000


def potential_orders(size: np.ndarray) -> np.ndarray:
    """E[order(arm) | size], [N, 3]."""
    control = 5 + 3 * size
    return np.stack([control, control + 0.3 * size, control + 0.25 + 0.4 * size], axis=1)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """A trial that draws the arms with unequal probabilities that depend on the town."""
    rng = np.random.default_rng(4)
    size, town = rng.normal(size=ROWS), rng.integers(0, 2, ROWS)
    chances = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])[town]
    arm = (rng.random(ROWS)[:, None] > chances.cumsum(1)).sum(1)
    given = np.arange(ROWS), arm
    return pd.DataFrame(
        {
            "unit_id": np.arange(ROWS).astype(str),
            "arm": arm,
            "propensity": chances[given],
            "explored": True,
            "explored_propensity": chances[given],
            "holdout": False,
            "size": size,
            "age": rng.normal(size=ROWS),
            "town": np.array(["east", "west"])[town],
            "order": potential_orders(size)[given] + rng.normal(size=ROWS, scale=0.2),
            "clicks": np.where(rng.random(ROWS) < 0.5, np.nan, rng.poisson(3, ROWS)),
        }
    )


@pytest.fixture(scope="module")
def prepared(frame: pd.DataFrame) -> Prepared:
    return prepare(frame, CAMPAIGN)


def outcomes(orders: np.ndarray) -> np.ndarray:
    return np.stack([orders, np.full_like(orders, 3.0)], axis=2)


def truth(frame: pd.DataFrame, prepared: Prepared) -> np.ndarray:
    """True potential outcomes of the judged rows, [N, A, K]."""
    from models.split import VALIDATION, folds

    held_out = folds(frame["unit_id"], CAMPAIGN.name) == VALIDATION
    return outcomes(potential_orders(frame["size"].to_numpy()[held_out]))


def test_the_measure_is_the_squared_error_of_the_effects_up_to_a_constant(
    frame: pd.DataFrame, prepared: Prepared
) -> None:
    rows, true = judge(prepared), truth(frame, prepared)
    assert len(rows.effects) == len(true)  # a row whose clicks are missing counts: they are worth 0
    value, cost = value_and_cost(true, CAMPAIGN)
    effect = value - cost
    assert objective(true, rows, CAMPAIGN) == pytest.approx((effect**2).sum(1).mean(), rel=0.1)
    wrong = true.copy()
    wrong[:, 2, 0] += 0.3  # an error of 0.6 in value
    loss = objective(true, rows, CAMPAIGN) - objective(wrong, rows, CAMPAIGN)
    assert loss == pytest.approx(0.36, rel=0.15)


def test_truth_beats_averages_and_averages_beat_nonsense(
    frame: pd.DataFrame, prepared: Prepared
) -> None:
    rows, true = judge(prepared), truth(frame, prepared)
    averages = np.broadcast_to(true.mean(0), true.shape)
    reversed_ = 2 * averages - true
    scores = [objective(guess, rows, CAMPAIGN) for guess in (true, averages, reversed_)]
    assert scores == sorted(scores, reverse=True)


def test_predicting_control_outcomes_well_or_badly_changes_nothing(
    frame: pd.DataFrame, prepared: Prepared
) -> None:
    rows, true = judge(prepared), truth(frame, prepared)
    shifted = true + np.random.default_rng(0).normal(size=(len(true), 1, 1))
    assert objective(shifted, rows, CAMPAIGN) == pytest.approx(objective(true, rows, CAMPAIGN))


def test_too_few_randomized_rows_of_an_arm_are_refused_by_its_name(frame: pd.DataFrame) -> None:
    rare = frame[(frame["arm"] != 2) | (np.arange(ROWS) % 2000 == 0)]
    with pytest.raises(DataError, match="arm 'tour' has .* randomized rows"):
        judge(prepare(rare, CAMPAIGN))


def test_exploited_rows_are_no_evidence_of_effects(frame: pd.DataFrame) -> None:
    explored = np.arange(ROWS) % 2 == 0
    mixed = prepare(frame.assign(explored=explored), CAMPAIGN)
    assert len(judge(mixed).effects) == int(mixed.trial.sum()) < len(mixed.validation)


def test_validation_measures_loss_and_effects_or_loss_alone(
    frame: pd.DataFrame, prepared: Prepared
) -> None:
    net = build("s_learner", prepared.recipe.shape, seed=0).eval()
    with torch.no_grad():
        measured = Validation.of(prepared)(net)
        assert measured["score"] == measured["effects"]
        policy_only = prepare(frame.assign(explored=False), CAMPAIGN)
        measured = Validation.of(policy_only)(net)
        assert measured == {"loss": measured["loss"], "score": -measured["loss"]}


def test_the_mean_loss_does_not_depend_on_how_rows_are_cut(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = build("s_learner", prepared.recipe.shape, seed=0).eval()
    rows: Batch = prepared.validation.select(torch.arange(5_000))
    with torch.no_grad():
        whole = mean_loss(net, rows)
        monkeypatch.setattr("models.selection.ROWS", 999)
        assert mean_loss(net, rows) == pytest.approx(whole, rel=1e-5)
