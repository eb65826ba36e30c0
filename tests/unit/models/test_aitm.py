"""AITM against its paper: transfers and calibrator written out slowly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
KINDS = ("binary", "continuous", "binary", "binary")
SHAPE = Shape(2, (), ((0,), (1,), (2,)), KINDS, (0, 2, 3))
SMALL = {"width": 5, "embedding": 2}


def rows_of(rows: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (rows, 4)).astype(float)
    weight = rng.uniform(0.5, 1.5, rows)
    features = (rng.normal(size=(rows, 2)), np.zeros((rows, 0)))
    return Batch.of(*features, np.arange(rows) % 3, y, None, weight)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def slow(net, x: np.ndarray, arm: int) -> list[float]:
    """One row under one arm: links of the four outcomes, steps 0, 2 and 3 a chain."""
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    given = w["fields.arms.table"][arm - 1] if arm else np.zeros(2)
    found = []
    for k in range(4):
        read = x @ w["towers.0.features.weight"][k] + given @ w["towers.0.arm"][k]
        read = relu(read + w["towers.0.features.bias"][k, 0])
        found.append(relu(read @ w["towers.2.0.weight"][k] + w["towers.2.0.bias"][k, 0]))
    for place, (before, step) in enumerate([(0, 2), (2, 3)]):
        at = f"transfers.{place}."
        told = relu(w[at + "tell.weight"] @ found[before] + w[at + "tell.bias"])
        scores, values = [], []
        for u in (found[step], told):
            h1, h2, h3 = np.split(w[at + "project.weight"] @ u + w[at + "project.bias"], 3)
            scores.append(h1 @ h2 / np.sqrt(5))
            values.append(h3)
        weights = np.exp(scores) / np.exp(scores).sum()
        found[step] = weights[0] * values[0] + weights[1] * values[1]
    return [w["heads.weight"][k] @ found[k] + w["heads.bias"][k] for k in range(4)]


def test_the_equations_written_out():
    net, rows = build("aitm", SHAPE, SMALL, seed=1), rows_of()
    expected = [[slow(net, x, arm) for arm in range(3)] for x in rows.x_num.double().numpy()]
    with torch.no_grad():
        links = net.links(rows.x_num, rows.x_cat)
    np.testing.assert_allclose(links, np.array(expected), rtol=1e-4, atol=1e-6)


def test_the_calibrator_is_how_much_likelier_a_step_is_than_the_one_before():
    net, rows = build("aitm", SHAPE, {**SMALL, "calibrator": 0.7}, seed=1), rows_of()
    net.start_from([0.3, 0.0, 0.5, 0.2])
    with torch.no_grad():
        terms, links = net(rows), net.factual(rows) + net.start
    chances = 1 / (1 + np.exp(-links[:, [0, 2, 3]].double().numpy()))
    excess = np.maximum(np.diff(chances, axis=1), 0).sum(axis=1)
    expected = np.mean(excess * rows.weight.numpy())
    assert expected > 0
    assert float(terms["calibrator"]) == pytest.approx(expected, rel=1e-5)
    total = float(terms["outcomes"]) + 0.7 * expected
    assert float(terms["loss"]) == pytest.approx(total, rel=1e-5)


def test_each_step_hears_the_steps_before_and_none_after():
    net, rows = build("aitm", SHAPE, SMALL, seed=1), rows_of(60)
    heard = []
    for step in (0, 2, 3, 1):
        net.zero_grad()
        net.factual(rows)[:, step].sum().backward()
        grad = net.towers[0].features.weight.grad.abs().sum((1, 2))
        heard.append((grad > 0).tolist())
    assert heard == [
        [True, False, False, False],
        [True, False, True, False],
        [True, False, True, True],
        [False, True, False, False],
    ]


def test_the_calibrator_puts_a_chain_in_order():
    """Labels at random with the later step the likelier: calibrated, it is (nearly) no likelier."""
    rng = np.random.default_rng(0)
    shape = Shape(2, (), ((0,), (1,)), ("binary", "binary"), (0, 1))
    y = (rng.random((400, 2)) < [0.3, 0.5]).astype(float)
    rows = Batch.of(rng.normal(size=(400, 2)), np.zeros((400, 0)), np.arange(400) % 2, y)
    excess = {}
    for weight in (0.0, 20.0):
        net = build("aitm", shape, {**SMALL, "calibrator": weight}, seed=1)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
        for _ in range(100):
            optimizer.zero_grad()
            net(rows)["loss"].backward()
            optimizer.step()
        excess[weight] = net(rows)["calibrator"].item()
    assert excess[0.0] > 0.1
    assert excess[20.0] < 0.02
