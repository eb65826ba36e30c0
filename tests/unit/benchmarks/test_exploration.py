"""The exploration benchmark: equal spend, a model that is the ridge it says, and sums that add up."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from benchmarks import exploration_model
from benchmarks.exploration import (
    BUDGET,
    COST,
    FLOOR,
    SHARE,
    STRATEGIES,
    Scene,
    figure,
    live,
    plan,
    show,
    summary,
)
from benchmarks.exploration_model import Ensemble, Features
from campaigns.worlds import world
from serving.policy.mixture import exploration_cost


def scene(players: int = 1000, seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    value = rng.normal(0.1, 0.4, (players, 3)) + rng.normal(0, 0.2, (6, players, 3))
    value[:, :, 0] = 0.0
    return Scene(value, BUDGET * players, SHARE * BUDGET * players)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_spends_the_same(strategy):
    there = scene()
    decided = plan(strategy, there)
    full = decided.propensities()
    assert (full @ COST).sum() == pytest.approx(there.budget, rel=0.01)
    exploring = exploration_cost(decided, COST).sum()
    assert exploring == pytest.approx(0.0 if strategy == "none" else there.spend, rel=1e-6)
    if strategy in ("directed", "thompson"):
        assert full.min() >= FLOOR - 1e-12


def test_the_ensemble_is_the_ridge_it_says():
    rng = np.random.default_rng(0)
    model = Ensemble(4, 3, members=2, keep=0.5, seed=3)
    rows = []
    twin = np.random.default_rng([3, 78])
    prior = twin.normal(0, exploration_model.PRIOR, (2, 3, 4))
    for age in (1, 0):
        phi, arm = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
        y, weight = rng.normal(size=60), rng.uniform(0.5, 2, 60)
        model.add(phi, arm, y, weight)
        rows.append((phi, arm, y, [weight * 0.5**age * twin.exponential(size=60) for _ in "ab"]))
    ask = rng.normal(size=(5, 4))
    for m, found in enumerate(model.values(ask)):
        design, target = [], []
        for phi, arm, y, weights in rows:  # [phi, phi 1(arm 1), phi 1(arm 2)], row by row
            wide = np.hstack([phi, phi * (arm == 1)[:, None], phi * (arm == 2)[:, None]])
            design.append(wide * np.sqrt(weights[m])[:, None])
            target.append(y * np.sqrt(weights[m]))
        penalty = np.repeat(
            [exploration_model.SHARED, exploration_model.EFFECT, exploration_model.EFFECT], 4
        )
        design.append(np.diag(np.sqrt(penalty)))
        target.append(np.sqrt(penalty) * prior[m].ravel())
        beta = np.linalg.lstsq(np.vstack(design), np.concatenate(target), rcond=None)[0]
        effects = beta.reshape(3, 4)[1:]
        np.testing.assert_allclose(found, np.c_[np.zeros(5), ask @ effects.T], atol=1e-9)


def test_features_are_numbers_for_players_with_gaps():
    simulated = world("game_bonus")
    first = simulated.units(400, seed=1)
    phi_of = Features.of(simulated, first, seed=0)
    later = phi_of(simulated.units(300, seed=2, day=9))
    assert np.isfinite(later).all()
    assert (later[:, 0] == 1).all()
    np.testing.assert_array_equal(phi_of(first)[5:9], phi_of(first.iloc[5:9]))


def test_a_short_run_tells_what_it_should(tmp_path, monkeypatch):
    monkeypatch.setattr(exploration_model, "RELUS", 8)
    runs = [
        live("effects", each, "plain", seed, cycles=3, players=200)
        for seed in (0, 1)
        for each in STRATEGIES
    ]
    for run in runs:
        columns = {name: np.array(each) for name, each in run["cycles"].items()}
        assert {len(each) for each in columns.values()} == {2}
        assert (columns["regret"] >= 0).all()
        assert (columns["pehe"] > 0).all()
    # the first decision is of the same model for all: uniform data, equal luck
    first = {run["cycles"]["correlation"][0] for run in runs if run["seed"] == 0}
    assert len(first) == 1
    again = live("effects", "thompson", "plain", 1, cycles=3, players=200)
    assert again == runs[-1]
    report = {"machine": "here", "players": 200, "cycles": 3, "results": runs}
    table = summary(report).set_index("strategy")
    assert table.loc["constant", "value_more"] == 0
    apart = table.loc["none", "value"] - table.loc["constant", "value"]
    assert table.loc["none", "value_more"] == pytest.approx(apart)
    shares = {each: table.loc[each, "exploration_spend"] for each in STRATEGIES[1:]}
    assert shares == pytest.approx(dict.fromkeys(shares, SHARE * BUDGET), rel=1e-6)
    console = Console(file=io.StringIO(), width=160)
    show(report, console)
    assert all(name in console.file.getvalue() for name in STRATEGIES)
    figure(report, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
