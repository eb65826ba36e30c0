"""The duality R-learner: its losses written out, effects of many arms, a price that meets the budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape
from models.training import InMemoryBatches, TrainConfig, fit

torch.set_num_threads(1)
PAID = Shape(3, (), ((0,), (1,), (2,)), ("continuous", "continuous"), (), (2.0, 0.0), (), 1, 0.5)


def trial(rows: int, seed: int) -> tuple[Batch, np.ndarray]:
    """Arms drawn with probabilities that depend on x, as the outcomes do; true effects [N, 3, 2]."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    chances = np.where(x[:, :1] > 0, [[0.6, 0.2, 0.2]], [[0.2, 0.3, 0.5]])
    arm = (rng.random(rows)[:, None] > chances.cumsum(1)).sum(1)
    effects = np.zeros((rows, 3, 2))
    effects[:, 1] = np.column_stack([0.5 + 0.5 * (x[:, 1] > 0), np.full(rows, 0.3)])
    effects[:, 2] = np.column_stack([1.0 * (x[:, 1] > 0), 0.2 + 0.6 * (x[:, 2] > 0)])
    y = effects[np.arange(rows), arm] + 0.8 * x[:, :1] + 0.4 * rng.normal(size=(rows, 2))
    p = chances[np.arange(rows), arm]
    return Batch.of(x, np.zeros((rows, 0)), arm, y, p), effects


def test_the_losses_written_out():
    rows, _ = trial(200, 0)
    net = build("duality_r_learner", PAID, seed=1).eval()
    net.price.fill_(0.7)
    with torch.no_grad():
        terms = net(rows)
        m = net.means(rows.x_num, rows.x_cat).double().numpy()
        tau = net.effects(rows.x_num, rows.x_cat).double().numpy()
    arm, y = rows.arm.numpy(), rows.y.double().numpy()
    w = 1 / (3 * rows.propensity.double().numpy())
    left = np.zeros((200, 2))
    for i in range(200):
        left[i] = y[i] - m[i] - sum(((arm[i] == a) - 1 / 3) * tau[i, a] for a in range(3))
    count = np.array([2.0, -0.7 * 0.5])  # value less price times cost, of a unit of each outcome
    decision = np.mean(w * (left @ count) ** 2) / (count @ count)
    assert float(terms["mean"]) == pytest.approx(
        (w[:, None] * (y - m) ** 2).mean(0).sum(), rel=1e-4
    )
    assert float(terms["effects"]) == pytest.approx((w[:, None] * left**2).mean(0).sum(), rel=1e-4)
    assert float(terms["decision"]) == pytest.approx(decision, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(sum(float(terms[t]) for t in list(terms)[1:]))


def test_the_arms_mean_is_m_and_only_its_own_loss_moves_it():
    rows, _ = trial(50, 1)
    net = build("duality_r_learner", PAID, seed=1)
    with torch.no_grad():
        links = net.links(rows.x_num, rows.x_cat)
        torch.testing.assert_close(links.mean(1), net.means(rows.x_num, rows.x_cat))
        gaps = (links - links[:, :1]) - net.effects(rows.x_num, rows.x_cat)
    assert float(gaps.abs().max()) < 1e-5
    terms = net(rows)
    (terms["effects"] + terms["decision"]).backward()
    assert all(weight.grad is None for weight in net.mean.parameters())
    assert all(weight.grad is not None for weight in net.effect.parameters())


def test_effects_are_found_though_the_arms_probabilities_depend_on_the_unit():
    rows, effects = trial(6000, 2)
    net = build("duality_r_learner", PAID, seed=0)
    held_out, true = trial(3000, 3)
    config = TrainConfig(epochs=10, batch_size=256, learning_rate=5e-3, device="cpu")
    fit(
        net,
        InMemoryBatches(rows, 256),
        lambda net: {"loss": float(net(held_out)["loss"])},
        config,
    )
    with torch.no_grad():
        found = net.effects(held_out.x_num, held_out.x_cat).numpy()
    error = np.sqrt(np.mean((found - true)[:, 1:] ** 2))
    spread = np.sqrt(np.mean((true - effects.mean(0))[:, 1:] ** 2))
    assert error < 0.6 * spread


def test_the_price_rises_until_the_budget_is_kept_and_falls_to_nothing_where_there_is_plenty():
    _, effects = trial(2000, 4)
    tau = torch.as_tensor(effects, dtype=torch.float32)
    row = torch.ones(len(tau))
    prices = []
    for share in (0.3, 1.0):
        net = build("duality_r_learner", PAID, {"cost_share": share}, seed=0)
        for _ in range(500):
            net.ascend(tau, row)
        prices.append(float(net.price))
    assert prices[1] == pytest.approx(0.0, abs=0.05)
    value, cost = 2.0 * effects[..., 0], 0.5 * effects[..., 1]
    spent = [
        cost[np.arange(2000), np.argmax(value - price * cost, axis=1)].mean()
        for price in (0.9 * prices[0], 1.1 * prices[0])
    ]
    most = cost[np.arange(2000), value.argmax(1)].mean()
    assert spent[1] <= 0.3 * most <= spent[0], "the price is where spend crosses the budget"
