"""ESCM2 against its paper: the risks written out slowly, and unbiased where ESMM's own is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
SHAPE = Shape(2, (), ((0,), (1,), (2,)), ("binary", "continuous", "binary", "binary"), (0, 2, 3))
SMALL = {"width": 5, "layers": 1, "embedding": 2}


def rows_of(rows: int = 40) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(rows, 4))
    y[:, [0, 2, 3]] = np.cumprod(rng.random((rows, 3)) < 0.6, axis=1)
    y[rng.random(y.shape) < 0.1] = np.nan
    features = (rng.normal(size=(rows, 2)), np.zeros((rows, 0)))
    return Batch.of(*features, np.arange(rows) % 3, y, None, rng.uniform(0.5, 1.5, rows))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def entropy(y: float, logit: float) -> float:
    return -(y * np.log(sigmoid(logit)) + (1 - y) * np.log(1 - sigmoid(logit)))


@pytest.mark.parametrize("risk", ["ips", "dr"])
def test_the_risks_written_out(risk):
    config = {**SMALL, "risk": risk, "clip": 0.3, "counterfactual": 0.7, "product": 0.4}
    net, rows = build("escm2", SHAPE, config, seed=1), rows_of()
    net.start_from([0.6, 0.0, 0.4, 0.2])
    with torch.no_grad():
        terms, treated = net(rows), net.fields.given(rows)
        logits = (net.answer(treated) + net.start)[:, [0, 2, 3]].double().numpy()
        if risk == "dr":
            guesses = net.imputation(treated).squeeze(-1).T + net.start[[2, 3]]
            guesses = guesses.double().numpy()
        plain = net.outcome_loss(net.factual(rows), rows).double().numpy().mean(axis=0)
    expected = imputation = 0.0
    for row in range(40):
        y, seen = rows.y[row, [0, 2, 3]].numpy(), rows.y_mask[row, [0, 2, 3]].numpy()
        for step in (1, 2):
            chance = max(np.prod(sigmoid(logits[row, :step])), 0.3)
            weight = float(rows.weight[row])
            took = y[step - 1] * seen[step - 1] * seen[step]
            error = entropy(y[step], logits[row, step])
            if risk == "ips":
                expected += weight * took * error / chance / 40
                continue
            guess = entropy(sigmoid(guesses[row, step - 1]), logits[row, step])
            expected += weight * (guess + took * (error - guess) / chance) / 40
            imputation += weight * took * (error - guess) ** 2 / chance / 40
    outcomes = plain @ [1.0, 1.0, 0.4, 0.4]
    assert float(terms["risk"]) == pytest.approx(expected, rel=1e-4)
    assert float(terms["outcomes"]) == pytest.approx(outcomes, rel=1e-5)
    if risk == "dr":
        assert float(terms["imputation"]) == pytest.approx(imputation, rel=1e-4)
    total = outcomes + 0.7 * (expected + imputation)
    assert float(terms["loss"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("risk", ["ips", "dr"])
def test_a_chance_is_a_weight_and_learns_nothing_from_the_risk(risk):
    net, rows = build("escm2", SHAPE, {**SMALL, "risk": risk}, seed=1), rows_of()
    net(rows)["risk"].backward()
    taught = net.towers[0].features.weight.grad.abs().sum((1, 2)) > 0
    assert taught.tolist() == [False, False, True, True], "the first step has no condition"


def test_each_risk_trains_its_own_towers():
    net, rows = build("escm2", SHAPE, {**SMALL, "risk": "dr"}, seed=1), rows_of()
    terms = net(rows)
    terms["risk"].backward(retain_graph=True)
    assert all(p.grad is None for p in net.imputation.parameters())
    net.zero_grad()
    terms["imputation"].backward()
    assert all(p.grad is None for p in net.towers.parameters())
    assert all(p.grad.abs().sum() > 0 for p in net.imputation.parameters())


@pytest.mark.parametrize("risk", ["ips", "dr"])
def test_the_risk_over_clickers_is_that_over_everybody(risk):
    """Clicks and purchases both driven by x: the risk's mean over draws of clicks is the whole's."""
    rng = np.random.default_rng(0)
    shape = Shape(1, (), ((0,), (1,)), ("binary", "binary"), (0, 1))
    net = build("escm2", shape, {**SMALL, "risk": risk, "clip": 1e-3}, seed=1)
    x = rng.normal(size=(200_000, 1))
    arm, would = np.zeros(200_000, int), rng.random(200_000) < sigmoid(2 * x[:, 0])
    with torch.no_grad():
        rows = Batch.of(x, np.zeros((200_000, 0)), arm, np.zeros((200_000, 2)))
        logits = (net.answer(net.fields.given(rows)) * 3 + net.start).double().numpy()
        net.answer = lambda treated: torch.tensor(logits).float() - net.start
        click = rng.random(200_000) < sigmoid(logits[:, 0])
        rows = Batch.of(x, np.zeros((200_000, 0)), arm, np.stack([click, click & would], axis=1))
        measured = float(net(rows)["risk"])
    truth = entropy(would, logits[:, 1])
    assert measured == pytest.approx(truth.mean(), rel=0.02)
