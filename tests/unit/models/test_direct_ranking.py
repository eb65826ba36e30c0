"""The direct ranking model: its loss written out, and the order that its regularizer gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape
from models.nets.direct_ranking import EVEN, log_softplus

torch.set_num_threads(1)
SHAPE = Shape(3, (), ((0,), (1,)), ("continuous", "continuous"), (), (2.0, 0.0), (), 1, 0.5)
PLAIN = {"baseline": False, "dropout": 0.0}


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum()


def test_the_loss_is_the_ratio_of_softmax_gated_effects():
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(400, 3)), rng.integers(0, 2, 400)
    y = rng.normal(size=(400, 2)) + arm[:, None] * [0.5, 0.8]
    rows = Batch.of(x, np.zeros((400, 0)), arm, y, np.full(400, 0.5))
    net = build("direct_ranking", SHAPE, {**PLAIN, "sharpness": 2.0, "bend": 4.0}, seed=1).eval()
    with torch.no_grad():
        found = float(net(rows)["loss"])
        s = net.scores(rows.x_num, rows.x_cat)[:, 1].double().numpy()
    treated, control = arm == 1, arm == 0
    gated = softmax(2.0 * s[treated]) @ y[treated] - softmax(2.0 * s[control]) @ y[control]
    average = y[treated].mean(0) - y[control].mean(0)
    value, cost = gated / average  # the units of both cancel
    squared = np.average(y[treated, 1], weights=s[treated] ** 2)
    squared -= np.average(y[control, 1], weights=s[control] ** 2)
    expected = np.log(np.log1p(np.exp(4.0 * cost)) / np.log1p(np.exp(4.0 * value)))
    expected += 0.3 * np.mean(s**2) * (squared / average[1] + EVEN)
    assert found == pytest.approx(expected, rel=1e-3)


def test_arms_are_one_cohort_of_pairs():
    """Two arms: the same units once more, so gates are normalised over both."""
    shape = Shape(3, (), ((0,), (1,), (2,)), ("continuous",), costs=(0.0, 1.0, 3.0))
    rng = np.random.default_rng(1)
    x, arm = rng.normal(size=(600, 3)), rng.integers(0, 3, 600)
    y = (rng.normal(size=600) + np.array([0.0, 0.6, 1.5])[arm])[:, None]
    rows = Batch.of(x, np.zeros((600, 0)), arm, y, np.full(600, 1 / 3))
    net = build("direct_ranking", shape, {**PLAIN, "penalty": 0.0}, seed=2).eval()
    with torch.no_grad():
        found = float(net(rows)["loss"])
        s = net.scores(rows.x_num, rows.x_cat)[:, 1:].double().numpy()
    share = np.exp(s).sum(0) / np.exp(s).sum()
    effect = [
        softmax(s[arm == a, a - 1]) @ y[arm == a, 0] - softmax(s[arm == 0, a - 1]) @ y[arm == 0, 0]
        for a in (1, 2)
    ]
    average = np.mean([y[arm == a].mean() - y[arm == 0].mean() for a in (1, 2)])
    value, cost = share @ effect / average, share @ [1.0, 3.0] / 2.0
    expected = np.log(np.log1p(np.exp(3.0 * cost)) / np.log1p(np.exp(3.0 * value)))
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_logarithm_of_softplus_is_safe_far_below_zero():
    z = torch.tensor([-300.0, -20.0, -15.1, -14.9, 0.0, 30.0], dtype=torch.float64)
    z.requires_grad_()
    found = log_softplus(z)
    expected = np.log(np.log1p(np.exp(z.detach().numpy()[1:])))
    np.testing.assert_allclose(found.detach()[1:], expected, atol=1e-6)
    assert found[0].item() == -300.0
    found.sum().backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad > 0).all()


# Value and cost of four segments: the first returns most for what it costs, the second gains most.
SEGMENTS = np.array([[0.4, 0.2], [3.0, 2.0], [0.8, 1.0], [0.1, 0.8]])


def scores_of_segments(**config: float) -> np.ndarray:
    """Scores of the segments, trained without noise."""
    segment, arm = np.divmod(np.arange(64), 2)
    segment = segment % 4
    y = SEGMENTS[segment] * arm[:, None]
    rows = Batch.of(np.zeros((64, 0)), segment[:, None] + 1, arm, y, np.full(64, 0.5))
    shape = Shape(0, (5,), ((0,), (1,)), ("continuous", "continuous"), (), (1.0, 0.0), (), 1)
    net = build("direct_ranking", shape, {**PLAIN, "memory": 1, **config}, seed=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        net(rows)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        return net.scores(torch.zeros(4, 0), torch.arange(1, 5)[:, None])[:, 1].numpy()


def test_the_penalty_orders_by_value_for_cost_where_the_ratio_alone_makes_two_halves():
    ratio = scores_of_segments()
    assert (np.diff(ratio) < -0.02).all(), "by value / cost, all apart"
    halves = scores_of_segments(penalty=0.0)
    assert np.abs(halves).min() > 0.9, "the ratio alone has only the highest and lowest scores"
    assert halves[0] > 0 > halves[3]
