"""The criteria of selection know a good model from a bad one, and what they pick is counted right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.selection import (
    BEST,
    CRITERIA,
    LAST,
    SHARES,
    Held,
    Snapshot,
    compare,
    criteria,
    r_loss,
    resamples,
    summary,
)
from campaigns.loading import parse_campaign
from campaigns.objective import realised, value_and_cost
from models.metrics import qini
from models.selection import Judge, objective

CAMPAIGN = parse_campaign("""
name: shop
unit: person
source: {kind: events}
timestamp: at
features: {numeric: [x]}
treatments:
  gift: {column: gift, control: none, levels: {none: , small: {cost: 0.2}, large: {cost: 0.5}}}
outcomes:
  buys: {kind: binary, value: 1.0}
  spends: {kind: continuous, value: 0.5}
budget: {amount: 10}
""")
ROWS = 20_000
CHANCES = np.array([0.5, 0.3, 0.2])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Expected potential outcomes, [N, A, K]; the effects go both ways."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (ROWS, 2))
    buys = 0.5 + np.stack([np.zeros(ROWS), 0.35 * x[:, 0], 0.3 * x[:, 0] + 0.15 * x[:, 1]], axis=1)
    spends = 2.0 + np.stack([x[:, 1], x[:, 1] + x[:, 0], x[:, 1] + 1.5 * x[:, 0]], axis=1)
    return np.stack([buys, spends], axis=2)


@pytest.fixture(scope="module")
def held(truth: np.ndarray) -> Held:
    """A log of them; q is right on average, as a cross-fitted one would be."""
    rng = np.random.default_rng(1)
    arm = rng.choice(3, ROWS, p=CHANCES)
    given = np.arange(ROWS), arm
    mean = truth[given]
    outcomes = np.column_stack(
        [rng.random(ROWS) < mean[:, 0], mean[:, 1] + rng.normal(0.0, 0.5, ROWS)]
    ).astype(float)
    reward = realised(outcomes, arm, CAMPAIGN)[0]
    q = np.tile((truth @ CAMPAIGN.values).mean(axis=0), (ROWS, 1))
    gamma = q.copy()
    gamma[given] += (reward - q[given]) / CHANCES[arm]
    rows = Judge(np.arange(ROWS), gamma - gamma[:, :1])
    return Held(CAMPAIGN, rows, arm, CHANCES[arm], outcomes, q, CHANCES)


def reversed_effects(truth: np.ndarray) -> np.ndarray:
    return 2.0 * truth[:, :1] - truth


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_truth_is_above_a_noisy_model_and_that_above_a_reversed_one(criterion, truth, held):
    noise = np.random.default_rng(2).normal(size=(2, *truth.shape)) * np.array([0.15, 1.0])
    once = np.ones((1, ROWS))
    perfect, noisy, turned = (
        criteria(model, held, once)[criterion][0]
        for model in (truth, truth + noise[0], reversed_effects(truth) + 0.3 * noise[1])
    )
    assert perfect > noisy
    assert perfect > turned
    if criterion != "loss":  # noise in the level costs the loss as much as wrong effects do
        assert noisy > turned


def test_the_effects_are_those_that_the_pipeline_measures(truth, held):
    found = criteria(truth, held, np.ones((1, ROWS)))["effects"][0]
    assert found == pytest.approx(objective(truth, held.judge, CAMPAIGN))


def test_the_r_risk_is_residual_on_residual(truth, held):
    effect = value_and_cost(truth, CAMPAIGN)[0]
    reward = realised(held.outcomes, held.arm, CAMPAIGN)[0]
    found = r_loss(effect, reward, held)
    for row in range(50):
        expected = sum(CHANCES[a] * held.q[row, a] for a in range(3))
        fitted = sum(((held.arm[row] == a) - CHANCES[a]) * effect[row, a] for a in (1, 2))
        assert found[row] == pytest.approx((reward[row] - expected - fitted) ** 2)


def test_weights_are_rows_drawn_several_times(truth, held):
    rows = 600
    part = slice(0, rows)
    weight = resamples(rows, 3, seed=4)
    assert weight.shape == (4, rows)
    np.testing.assert_array_equal(weight.sum(axis=1), rows)
    np.testing.assert_array_equal(weight[0], 1.0)
    some = _rows(held, np.arange(rows))
    found = criteria(truth[part], some, weight)
    drawn = np.repeat(np.arange(rows), weight[2].astype(int))
    again = criteria(truth[drawn], _rows(held, drawn), np.ones((1, rows)))
    for name in ("effects", "r risk", "qini", "autoc"):
        assert found[name][2] == pytest.approx(again[name][0], abs=0.01), name
    value = value_and_cost(truth[part], CAMPAIGN)[0]
    best = value[:, 1:].argmax(axis=1) + 1
    kept = (some.arm == best) | (some.arm == 0)
    assert found["qini"][0] == pytest.approx(
        qini(
            realised(some.outcomes, some.arm, CAMPAIGN)[0][kept],
            value[np.arange(rows), best][kept],
            (some.arm > 0)[kept].astype(int),
            propensity=some.propensity[kept],
            normalize="perfect",
        )
    )


def _rows(held: Held, rows: np.ndarray) -> Held:
    seen = held.judge
    return Held(
        CAMPAIGN,
        Judge(seen.places[rows], seen.effects[rows]),
        held.arm[rows],
        held.propensity[rows],
        held.outcomes[rows],
        held.q[rows],
        CHANCES,
    )


def snapshot(net: str, epoch: int, share: float, measured: float, common: np.ndarray) -> Snapshot:
    drawn = {name: np.append(measured, measured + common) for name in CRITERIA}
    drawn["loss"] = -drawn["loss"]
    return Snapshot(net, epoch, drawn, dict.fromkeys(SHARES, share))


def test_what_is_picked_its_regret_and_its_noise():
    common = np.array([1.0, -1.0])  # moves every snapshot alike
    shares = {("a", 0): 0.2, ("a", 1): 0.6, ("b", 0): 0.4, ("b", 1): 0.3}
    found = [snapshot(*key, share, share, common) for key, share in shares.items()]
    here = compare(found)
    assert here[BEST]["at 20%"] == 0.6
    assert here[LAST]["at 20%"] == 0.3
    assert here["effects"]["at 10%"] == 0.6
    assert (here["effects"]["regret"], here["loss"]["regret"]) == pytest.approx((0.0, 0.4))
    assert (here["effects"]["rank"], here["loss"]["rank"]) == pytest.approx((1.0, -1.0))
    assert here["effects"]["noise"] == pytest.approx(1.0 / np.std(list(shares.values())))
    assert here["effects"]["apart"] == pytest.approx(0.0, abs=1e-12)
    lines = {(one["scope"], one["criterion"]): one for one in summary(found)}
    assert lines["epochs of a net", "effects"]["at 50%"] == pytest.approx((0.6 + 0.4) / 2)
    assert lines["epochs of a net", "loss"]["at 50%"] == pytest.approx((0.2 + 0.3) / 2)
    assert lines["epochs of a net", LAST]["at 50%"] == pytest.approx((0.6 + 0.3) / 2)
    assert ("all nets", LAST) not in lines
