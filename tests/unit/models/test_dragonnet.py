"""Dragonnet against Shi et al.: eq. 3.2 written out, what epsilon solves, what the arm head learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.data import Batch, Shape
from models.nets.dragonnet import Dragonnet, DragonnetConfig
from models.nets.tarnet import TARNet, TARNetConfig

torch.set_num_threads(1)
SHAPE = Shape(3, (), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"width": 6, "hidden": 5}


def dragonnet(seed: int = 0, **settings) -> Dragonnet:
    torch.manual_seed(seed)
    net = Dragonnet(SHAPE, DragonnetConfig(**SMALL, **settings))
    with torch.no_grad():
        net.epsilon.normal_()
    return net


def rows_of(rows: int = 60) -> Batch:
    rng = np.random.default_rng(0)
    y = np.stack([rng.integers(0, 2, rows), rng.normal(size=rows)], axis=1).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    x = rng.normal(size=(rows, 3))
    arm = rng.integers(0, 3, rows)
    chance = rng.uniform(0.02, 1.0, rows)
    chance[0] = 1e-4
    return Batch.of(x, np.zeros((rows, 0)), arm, y, chance, rng.uniform(0.5, 1.5, rows))


def slow_terms(net: Dragonnet, batch: Batch, loss: str, logged: bool) -> dict[str, float]:
    """The terms of eq. 3.2, row by row, from the net's links and its arm head's logits."""
    with torch.no_grad():
        links = net.links(batch.x_num, batch.x_cat).double().numpy()
        logits = net.propensity(net.representation(batch.x_num, batch.x_cat)).double().numpy()
    epsilon = net.epsilon.detach().double().numpy()
    terms = dict.fromkeys(("factual", "arm", "targeted"), 0.0)
    for i in range(len(batch)):
        t, w = int(batch.arm[i]), float(batch.weight[i])
        chances = np.exp(logits[i]) / np.exp(logits[i]).sum()
        terms["arm"] -= w * np.log(chances[t]) / len(batch)
        g = float(batch.propensity[i]) if logged else chances[t]
        for k in range(2):
            y = float(batch.y[i, k])
            fluctuated = links[i, t, k] + epsilon[t, k] / max(3 * g, 0.02)
            for term, link in (("factual", links[i, t, k]), ("targeted", fluctuated)):
                row = (y - link) ** 2
                if loss == "bce" and k == 0:
                    row = np.log1p(np.exp(link)) - y * link
                terms[term] += w * float(batch.y_mask[i, k]) * row / len(batch)
    return terms


@pytest.mark.parametrize("propensity", ["logged", "learned"])
@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_loss_is_equation_3_2(loss, propensity):
    net = dragonnet(alpha=0.3, beta=0.6, loss=loss, propensity=propensity)
    batch = rows_of()
    expected = slow_terms(net, batch, loss, propensity == "logged")
    with torch.no_grad():
        terms = net(batch)
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-4), name
    total = expected["factual"] + 0.3 * expected["arm"] + 0.6 * expected["targeted"]
    assert float(terms["loss"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_best_epsilon_solves_the_estimating_equation_of_every_arm(loss):
    """At the minimum, residuals weighted by 1 / g sum to 0 over the rows of each arm."""
    net, batch = dragonnet(loss=loss), rows_of(300)
    optimizer = torch.optim.LBFGS([net.epsilon], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = net(batch)["targeted"]
        value.backward()
        return value

    before = estimating(net, batch)
    optimizer.step(closure)
    after = estimating(net, batch)
    assert np.abs(before).max() > 0.1
    assert np.abs(after).max() < 1e-3


def estimating(net: Dragonnet, batch: Batch) -> np.ndarray:
    """Mean of 1[t = a] (y - response) / g of each arm and outcome, [A, K]."""
    with torch.no_grad():
        moved = net.factual(batch) + net.fluctuation(batch.arm, batch.propensity)
        response = torch.where(net.logistic, moved.sigmoid(), moved)
        residual = (batch.y - response) * batch.y_mask * batch.weight[:, None]
        residual = residual / (3 * batch.propensity).clamp_min(0.02)[:, None]
    return np.stack([residual[batch.arm == a].sum(0) / len(batch) for a in range(3)])


def test_epsilon_is_no_part_of_an_answer():
    net, batch = dragonnet(), rows_of()
    with torch.no_grad():
        before = net.potential_outcomes(batch.x_num, batch.x_cat)
        net.epsilon.add_(1.0)
        assert torch.equal(net.potential_outcomes(batch.x_num, batch.x_cat), before)


def test_without_its_terms_it_is_tarnet():
    batch = rows_of()
    torch.manual_seed(0)
    plain = TARNet(SHAPE, TARNetConfig(**SMALL))
    with torch.no_grad():
        mine = dragonnet(alpha=0.0, beta=0.0)(batch)["loss"]
        torch.testing.assert_close(mine, plain(batch)["loss"])


@pytest.mark.parametrize("propensity", ["logged", "learned"])
def test_logged_propensities_are_used_where_asked_for(propensity):
    net, batch = dragonnet(propensity=propensity), rows_of()
    with torch.no_grad():
        before = float(net(batch)["targeted"])
        batch.propensity = batch.propensity / 2
        after = float(net(batch)["targeted"])
    assert (before != after) == (propensity == "logged")


def test_the_arm_head_learns_who_is_treated_and_the_average_effect_is_unconfounded():
    from models.training import InMemoryBatches, TrainConfig, fit

    rng = np.random.default_rng(2)
    x = rng.normal(size=(3000, 2))
    chance = 1 / (1 + np.exp(-1.5 * x[:, 1]))
    arm = (rng.random(3000) < chance).astype(int)
    y = (x[:, 1] + 0.5 * arm + 0.3 * rng.normal(size=3000))[:, None]
    rows = Batch.of(x, np.zeros((3000, 0)), arm, y, np.where(arm, chance, 1 - chance))
    torch.manual_seed(0)
    net = Dragonnet(
        Shape(2, (), ((0,), (1,)), ("continuous",)), DragonnetConfig(width=16, hidden=16)
    )
    config = TrainConfig(epochs=6, learning_rate=1e-2, batch_size=128, weight_decay=1e-4)
    fit(net, InMemoryBatches(rows, 128), lambda net: {"loss": float(net(rows)["loss"])}, config)
    with torch.no_grad():
        learned = net.propensities(rows.x_num, rows.x_cat)
        links = net.links(rows.x_num, rows.x_cat)[..., 0]
    torch.testing.assert_close(learned.sum(1), torch.ones(3000))
    assert np.abs(learned[:, 1].numpy() - chance).mean() < 0.07
    naive = y[arm == 1].mean() - y[arm == 0].mean()
    assert abs(naive - 0.5) > 0.5, "comparing means would be far off"
    assert float((links[:, 1] - links[:, 0]).mean()) == pytest.approx(0.5, abs=0.08)
