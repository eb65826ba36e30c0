"""Constrained ranking: exact quantiles, gates that only order moves, a barrier that holds costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.catalog import build
from models.data import Batch, Shape
from models.nets.constrained_ranking import log_barrier, quantiles

torch.set_num_threads(1)
SHAPE = Shape(3, (), ((0,), (1,), (2,)), ("continuous",))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(0, 1000))
def test_a_quantile_leaves_its_share_above(count, seed):
    scores = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    shares = torch.tensor([0.1, 0.3, 0.5, 0.9])
    cut = quantiles(scores, shares)
    above = (scores.flatten()[:, None] >= cut).double().mean(0)
    assert (above >= shares - 1e-6).all()
    assert (above <= shares + 0.5 / count + 1e-6).all()
    assert torch.isin(cut, scores).all()


def test_gates_open_for_their_share_and_only_order_moves_them():
    net = build("constrained_ranking", SHAPE, {"points": 4, "temperature": 0.05}, seed=1)
    scores = (0.3 * torch.randn(2000, 2)).requires_grad_()
    gates = net.gates(scores)
    np.testing.assert_allclose(gates.detach().mean((0, 2)), [0.2, 0.4, 0.6, 0.8], atol=0.01)
    with torch.no_grad():
        torch.testing.assert_close(net.gates(3.0 * scores + 0.1), gates, rtol=1e-3, atol=1e-4)
    gates[:, 1].pow(2).sum().backward()
    assert float(scores.grad.abs().max()) > 0.01
    assert float(scores.grad.sum()) == pytest.approx(0.0, abs=1e-2), "moving all moves no gate"


def test_the_gradient_keeps_the_mean_gate():
    """A soft quantile: no gradient of any score changes how much is selected altogether."""
    net = build("constrained_ranking", SHAPE, {"points": 1}, seed=1)
    scores = (0.3 * torch.randn(500, 2)).requires_grad_()
    net.gates(scores).sum().backward()
    assert float(scores.grad.abs().max()) < 1e-3


@pytest.mark.parametrize("steepness", [1.0, 1.25, 5.0])
def test_the_barrier_is_a_logarithm_and_then_its_tangent(steepness):
    edge = -1.0 / steepness**2
    z = torch.tensor([2 * edge, edge - 1e-4, edge + 1e-4, 0.5], dtype=torch.float64)
    z.requires_grad_()
    found = log_barrier(z, steepness)
    found.sum().backward()
    assert found[0].item() == pytest.approx(-np.log(-2 * edge) / steepness)
    assert found[2].item() == pytest.approx(found[1].item(), abs=1e-2)
    assert z.grad[1].item() == pytest.approx(steepness, rel=1e-2)
    assert z.grad[2].item() == pytest.approx(steepness)
    assert z.grad[3].item() == pytest.approx(steepness)


def test_the_objective_written_out():
    shape = Shape(3, (), ((0,), (1,)), ("continuous", "continuous"), (), (2.0, 0.0), (), 1, 0.5)
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(500, 3)), rng.integers(0, 2, 500)
    y = rng.normal(size=(500, 2)) + arm[:, None] * [0.5, 0.8]
    rows = Batch.of(x, np.zeros((500, 0)), arm, y, np.full(500, 0.5))
    config = {"points": 1, "share": 0.25, "baseline": False, "cost_share": 0.9, "barrier": 2.0}
    net = build("constrained_ranking", shape, config, seed=1).eval()
    with torch.no_grad():
        found = float(net(rows)["loss"])
        s = net.scores(rows.x_num, rows.x_cat)[:, 1].double().numpy()
    cut = np.sort(s)[375]
    gate = 1 / (1 + np.exp(-(s - cut) / (0.3 * s.std())))
    means = [np.average(y[arm == a], axis=0, weights=gate[arm == a]) for a in (1, 0)]
    average = y[arm == 1].mean(0) - y[arm == 0].mean(0)
    value, cost = gate.mean() * (means[0] - means[1]) / average / 0.25
    z = cost / 0.9 - 1
    barrier = -np.log(-min(z, -0.25)) / 2 + 2 * max(z + 0.25, 0)
    assert found == pytest.approx(barrier - value, rel=1e-3)


def test_a_dear_segment_is_taken_only_where_the_constraint_allows_it():
    """Three segments: A gains most and costs by far the most; B gains; C neither gains nor costs."""
    effects = np.array([[2.0, 5.0], [1.5, 0.5], [0.1, 0.3]])
    segment, arm = np.divmod(np.arange(90), 2)
    segment = segment % 3
    y = effects[segment] * arm[:, None]
    rows = Batch.of(np.zeros((90, 0)), segment[:, None] + 1, arm, y, np.full(90, 0.5))
    shape = Shape(0, (4,), ((0,), (1,)), ("continuous", "continuous"), (), (1.0, 0.0), (), 1)
    order = []
    for cost_share in (0.5, 50.0):
        config = {"points": 1, "share": 0.34, "cost_share": cost_share, "baseline": False}
        net = build("constrained_ranking", shape, {**config, "memory": 1, "dropout": 0.0}, seed=0)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(200):
            optimizer.zero_grad()
            net(rows)["loss"].backward()
            optimizer.step()
        with torch.no_grad():
            scores = net.scores(torch.zeros(3, 0), torch.arange(1, 4)[:, None])[:, 1]
        order.append(int(scores.argmax()))
    assert order == [1, 0]
