"""Hydranet against its paper: a fluctuation for every effect against control."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.data import Batch, Shape
from models.nets.hydranet import Hydranet, HydranetConfig
from models.training import InMemoryBatches, TrainConfig, fit, predict

torch.set_num_threads(1)
SHAPE = Shape(2, (3,), ((0,), (1,), (2,)), ("continuous", "continuous"))
SMALL = {"embedding": 2, "width": 4, "hidden": 5}


def hydranet(seed: int = 1, **settings) -> Hydranet:
    torch.manual_seed(seed)
    return Hydranet(SHAPE, HydranetConfig(**SMALL, **settings))


def rows_of(rows: int = 60) -> Batch:
    rng = np.random.default_rng(0)
    return Batch.of(
        rng.normal(size=(rows, 2)),
        rng.integers(0, 3, (rows, 1)),
        rng.integers(0, 3, rows),
        rng.normal(size=(rows, 2)),
        rng.uniform(0.1, 0.9, rows),
        rng.uniform(0.5, 1.5, rows),
    )


@pytest.mark.parametrize("propensity", ["logged", "learned"])
def test_the_loss_written_out(propensity):
    net, batch = hydranet(alpha=0.3, beta=0.7, propensity=propensity), rows_of()
    torch.nn.init.normal_(net.epsilon)
    with torch.no_grad():
        terms, links = net(batch), net.links(batch.x_num, batch.x_cat).double().numpy()
        learned = net.propensities(batch.x_num, batch.x_cat).double().numpy()
        epsilon = net.epsilon.double().numpy()
    factual = told = targeted = 0.0
    for row in range(len(batch)):
        arm, weight = int(batch.arm[row]), float(batch.weight[row])
        g = float(batch.propensity[row]) if propensity == "logged" else learned[row, arm]
        told -= weight * np.log(learned[row, arm]) / len(batch)
        for k in range(2):
            y, moved = float(batch.y[row, k]), links[row, arm, k]
            factual += weight * (y - moved) ** 2 / len(batch)
            for a in (1, 2):
                moved += epsilon[a - 1, k] * ((arm == a) - (arm == 0)) / (3 * g)
            targeted += weight * (y - moved) ** 2 / len(batch)
    assert float(terms["factual"]) == pytest.approx(factual, rel=1e-4)
    assert float(terms["arm"]) == pytest.approx(told, rel=1e-4)
    assert float(terms["targeted"]) == pytest.approx(targeted, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(factual + 0.3 * told + 0.7 * targeted, rel=1e-4)


def test_the_gradient_in_epsilon_is_the_estimating_equation_of_every_effect():
    """Least where, for each arm a, the residuals times H_a sum to 0, as an efficient estimate has it."""
    net, batch = hydranet(beta=1.0), rows_of()
    torch.nn.init.normal_(net.epsilon)
    net(batch)["loss"].backward()
    with torch.no_grad():
        moved = net.factual(batch) + net.fluctuation(batch.arm, batch.propensity)
    residual = batch.weight[:, None] * (batch.y - moved)
    for a in (1, 2):
        h = ((batch.arm == a).float() - (batch.arm == 0).float()) / batch.propensity
        equation = (h[:, None] * residual).mean(0)
        torch.testing.assert_close(net.epsilon.grad[a - 1], -2 / 3 * equation)


def test_a_control_row_is_moved_by_every_effect():
    net = hydranet()
    with torch.no_grad():
        net.epsilon.copy_(torch.tensor([[1.0, 2.0], [10.0, 20.0]]))
    moved = net.fluctuation(torch.tensor([0, 1, 2]), torch.tensor([1 / 3, 1 / 3, 1 / 6]))
    torch.testing.assert_close(moved, torch.tensor([[-11.0, -22.0], [1.0, 2.0], [20.0, 40.0]]))


def test_improbable_arms_have_bounded_fluctuations():
    net = hydranet()
    torch.nn.init.ones_(net.epsilon)
    moved = net.fluctuation(torch.tensor([1, 1]), torch.tensor([1e-9, 0.02 / 3]))
    torch.testing.assert_close(moved[0], moved[1])


def test_a_policy_that_treats_the_best_units_does_not_pass_for_an_effect():
    """Two treatments that a policy gives to units who would have answered more anyway."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 3))
    weights = np.exp(np.outer(x[:, 0], [0.0, 1.0, 1.5]))
    chances = weights / weights.sum(axis=1, keepdims=True)
    arm = (rng.random((6000, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    effect = np.array([0.0, 0.3, 0.6])
    y = 1.2 * x[:, :1] + effect[arm][:, None] + 0.3 * rng.normal(size=(6000, 1))
    naive = np.array([y[arm == a].mean() for a in range(3)])
    assert (naive[1:] - naive[0] > effect[1:] + 0.5).all()
    rows = Batch.of(x, np.zeros((6000, 0)), arm, y, chances[np.arange(6000), arm])
    shape = Shape(3, (), ((0,), (1,), (2,)), ("continuous",))
    torch.manual_seed(0)
    net = Hydranet(shape, HydranetConfig())
    train = TrainConfig(epochs=6, learning_rate=5e-3)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, train)
    outcomes = predict(net, x, np.zeros((6000, 0)))[..., 0].mean(axis=0)
    np.testing.assert_allclose(outcomes[1:] - outcomes[0], effect[1:], atol=0.15)
