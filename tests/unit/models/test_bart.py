"""BART: draws as arrays answer as stochtree does, and weights and seeds mean what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from campaigns.errors import EnvironmentProblem
from models.catalog import build_learner
from models.data import Batch, Shape
from models.learners.bart import expected, flat

FACTORS = Shape(3, (), ((0, 0), (1, 0), (2, 0), (0, 1)), ("continuous", "binary"))


def batch(rows: int, seed: int) -> Batch:
    """Arms act on the first feature's size, the second outcome on its sign."""
    rng = np.random.default_rng(seed)
    x, arm = rng.normal(size=(rows, 3)), rng.integers(0, 4, rows)
    effect = np.array([0.0, 1.0, 2.0, -1.0])[arm]
    y = x[:, 0] + effect * (x[:, 1] > 0) + rng.normal(0, 0.3, rows)
    hit = rng.random(rows) < 0.3 + 0.4 * (x[:, 0] > 0)
    return Batch.of(
        x, np.zeros((rows, 0), int), arm, np.column_stack([y, hit]), np.full(rows, 0.25)
    )


def asked(learner, rows: Batch) -> np.ndarray:
    return learner.potential_outcomes(rows.x_num.numpy(), rows.x_cat.numpy())


def test_without_the_library_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("models.learners.base.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"'stochtree'.*pip install 'updraft\[bart\]'"):
        build_learner("bart", FACTORS).fit(batch(100, 0))


@pytest.mark.parametrize("binary", [False, True])
def test_draws_as_arrays_answer_as_stochtree_does(binary: bool) -> None:
    stochtree = pytest.importorskip("stochtree", reason="stochtree isn't installed")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 4))
    y = 5 + 2 * x[:, 0] * (x[:, 1] > 0) + rng.normal(size=400)
    kind = ("binary", "probit") if binary else ("continuous", "identity")
    model = stochtree.BARTModel()
    model.sample(
        x,
        (y > 5).astype(float) if binary else y,
        num_gfr=5,
        num_mcmc=30,
        general_params={
            "outcome_model": stochtree.OutcomeModel(outcome=kind[0], link=kind[1]),
            "sample_sigma2_global": not binary,
            "random_seed": 1,
            "keep_every": 2,
        },
        mean_forest_params={"num_trees": 8},
    )
    fresh = rng.normal(size=(150, 4))
    theirs = model.predict(
        fresh, type="mean", terms="y_hat", scale="probability" if binary else "linear"
    )
    ours = expected(flat(json.loads(model.to_json()), binary), fresh)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_factors_are_made_of_their_levels() -> None:
    pytest.importorskip("stochtree", reason="stochtree isn't installed")
    rows, test = batch(3000, 2), batch(500, 3)
    learner = build_learner("bart", FACTORS, {"forest": 30}).fit(rows)
    outcomes = asked(learner, test)
    effect = np.array([0.0, 1.0, 2.0, -1.0]) * (test.x_num.numpy()[:, 1:2] > 0)
    error = outcomes[..., 0] - outcomes[:, :1, 0] - effect
    assert np.sqrt(np.mean(error[:, 1:] ** 2)) < 0.35  # 0.71 is that of the mean effects
    assert np.abs(outcomes[..., 1] - outcomes[:, :1, 1]).mean() < 0.08  # no arm moves this one


def test_a_row_of_more_weight_counts_for_more() -> None:
    pytest.importorskip("stochtree", reason="stochtree isn't installed")
    rows = batch(1000, 4)
    high = (rows.y[:, 0] > rows.y[:, 0].median()).float()
    hit = rows.y[:, 1]
    config = {"forest": 10, "draws": 10, "every": 1, "warm_up": 5}
    plain, same, heavy = (
        asked(build_learner("bart", FACTORS, config).fit(replace(rows, weight=weight)), rows)
        for weight in (torch.ones(1000), torch.full((1000,), 3.0), 0.2 + high)
    )
    np.testing.assert_array_equal(plain, same)
    wanted = np.average(rows.y[:, 0], weights=0.2 + high)
    given = heavy[np.arange(1000), rows.arm, 0]
    assert np.average(given, weights=0.2 + high) == pytest.approx(wanted, abs=0.1)
    assert (heavy[..., 0] - plain[..., 0]).mean() > 0.2
    rated = asked(build_learner("bart", FACTORS, config).fit(replace(rows, weight=0.2 + hit)), rows)
    assert (rated[..., 1] - plain[..., 1]).mean() > 0.15
