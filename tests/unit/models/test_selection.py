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
from models.data import Batch, Shape
from models.dataset import Prepared, prepare
from models.nets.base import Net
from models.selection import Validation, factual_loss, judge, mean_loss, objective

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


def test_the_effects_do_not_depend_on_how_rows_are_cut(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = judge(prepared).effects
    monkeypatch.setattr("models.selection.ROWS", 777)
    np.testing.assert_allclose(judge(prepared).effects, whole, rtol=1e-9, atol=1e-9)


def test_exploited_rows_are_no_evidence_of_effects(frame: pd.DataFrame) -> None:
    explored = np.arange(ROWS) % 2 == 0
    mixed = prepare(frame.assign(explored=explored), CAMPAIGN)
    assert len(judge(mixed).effects) == int(mixed.trial.sum()) < len(mixed.validation)


def test_effects_are_measured_where_randomized_rows_suffice(
    frame: pd.DataFrame, prepared: Prepared
) -> None:
    net = build("s_learner", prepared.recipe.shape, seed=0).eval()
    policy_only = prepare(frame.assign(explored=False), CAMPAIGN)
    with torch.no_grad():
        assert set(Validation.of(prepared)(net)) == {"loss", "effects", "score"}
        assert set(Validation.of(policy_only)(net)) == {"loss", "score"}


def test_the_score_is_the_factual_loss_whatever_else_a_net_minimises(prepared: Prepared) -> None:
    """Two nets of the same answers, one of which weighs its outcomes' losses tenfold."""
    net = build("s_learner", prepared.recipe.shape, seed=0).eval()
    measure = Validation.of(prepared)
    with torch.no_grad():
        before = measure(net)
        own = net.loss
        net.loss = lambda batch: {"loss": 10.0 * own(batch)["loss"]}
        after = measure(net)
    assert after["loss"] == pytest.approx(10.0 * before["loss"])
    assert after["score"] == before["score"] == pytest.approx(-before["loss"], rel=1e-5)


def test_an_ensemble_of_one_answer_scores_as_that(prepared: Prepared) -> None:
    net = build("mtmt", prepared.recipe.shape, {"members": 2, "trees": 0}, seed=0).eval()
    alone = build("mtmt", prepared.recipe.shape, {"trees": 0}, seed=0).eval()
    net.start_from([5.0, 1.0])
    alone.start_from([5.0, 1.0])  # what is read out starts at 0: every member answers the averages
    measure = Validation.of(prepared)
    with torch.no_grad():
        assert measure(net)["score"] == pytest.approx(measure(alone)["score"], rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_factual_loss_is_that_of_the_arm_given(loss: str) -> None:
    """Against a plain loop: rows weigh, what wasn't observed doesn't count."""
    shape = Shape(1, (), ((0,), (1,)), ("binary", "continuous"))
    rng = np.random.default_rng(5)
    y = np.array([[1, 0.3], [0, -1.0], [1, np.nan], [0, 2.0], [1, 0], [0, 1]], np.float32)
    arm, weight = np.array([0, 1, 1, 0, 1, 0]), np.array([1, 2, 1, 1, 0.5, 0], np.float32)
    empty = np.zeros((6, 1), np.float32), np.zeros((6, 0), np.int64)
    rows = Batch.of(*empty, arm, y, weight=weight)
    predicted = rng.uniform(0.1, 0.9, (6, 2, 2)).astype(np.float32)
    expected = 0.0
    for row, k in np.argwhere(~np.isnan(y)):
        was, p = y[row, k], predicted[row, arm[row], k]
        entropy = -np.log(p if was else 1.0 - p)
        mine = entropy if (loss, k) == ("bce", 0) else (was - p) ** 2
        expected += weight[row] * mine / 6
    assert factual_loss(Net(shape, loss), predicted, rows) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("limit", ["ROWS", "CELLS"])
def test_the_mean_loss_does_not_depend_on_how_rows_are_cut(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    net = build("s_learner", prepared.recipe.shape, seed=0).eval()
    rows: Batch = prepared.validation.select(torch.arange(5_000))
    with torch.no_grad():
        whole = mean_loss(net, rows)
        monkeypatch.setattr(f"models.selection.{limit}", 999)
        assert mean_loss(net, rows) == pytest.approx(whole, rel=1e-5)
