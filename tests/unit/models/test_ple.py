"""PLE against its paper: two levels of extraction written out slowly."""

from __future__ import annotations

import numpy as np
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
SHAPE = Shape(2, (), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"width": 5, "own": 2, "shared": 1, "tower": 4, "embedding": 2}


def rows_of(rows: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (rows, 2)).astype(float)
    return Batch.of(rng.normal(size=(rows, 2)), np.zeros((rows, 0)), np.arange(rows) % 3, y)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def slow(net, x: np.ndarray, arm: int) -> list[float]:
    """One row under one arm: 2 outcomes, 2 experts each and 1 for both, 2 levels."""
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    given = w["fields.arms.table"][arm - 1] if arm else np.zeros(2)

    def first(layer: str, copy: int) -> np.ndarray:
        made = x @ w[layer + ".features.weight"][copy] + given @ w[layer + ".arm"][copy]
        return made + w[layer + ".features.bias"][copy, 0]

    def later(layer: str, copy: int, stream: np.ndarray) -> np.ndarray:
        return stream @ w[layer + ".weight"][copy] + w[layer + ".bias"][copy, 0]

    at = "levels.0."
    experts = [
        relu(later(at + "experts.0.2.0", e, relu(first(at + "experts.0.0", e)))) for e in range(5)
    ]
    heard = [[0, 1, 4], [2, 3, 4]]  # by outcome: its own experts, the shared one
    streams = [
        sum(g * experts[e] for g, e in zip(softmax(first(at + "gate", task)), heard[task]))
        for task in range(2)
    ]
    gate = softmax(first(at + "shared_gate", 0))
    streams.append(sum(g * e for g, e in zip(gate, experts)))

    at, answers = "levels.1.", []
    experts = []
    for e, stream in enumerate([0, 0, 1, 1, 2]):
        hidden = relu(later(at + "experts.0.network.0", e, streams[stream]))
        experts.append(relu(later(at + "experts.0.network.2", e, hidden)))
    for task in range(2):
        gate = softmax(later(at + "gate.network", task, streams[task]))
        found = sum(g * experts[e] for g, e in zip(gate, heard[task]))
        answers.append(later("towers.2", task, relu(later("towers.0", task, found)))[0])
    return answers


def test_the_equations_written_out():
    net, rows = build("ple", SHAPE, SMALL, seed=1), rows_of()
    expected = [[slow(net, x, arm) for arm in range(3)] for x in rows.x_num.double().numpy()]
    with torch.no_grad():
        links = net.links(rows.x_num, rows.x_cat)
    np.testing.assert_allclose(links, np.array(expected), rtol=1e-4, atol=1e-6)


def taught(levels: int) -> list[bool]:
    """Which experts of the first level the first outcome's loss reaches."""
    net, rows = build("ple", SHAPE, {**SMALL, "levels": levels}, seed=1), rows_of(60)
    net.outcome_loss(net.factual(rows), rows)[:, 0].mean().backward()
    experts = net.levels[0].experts[0][0].features.weight
    return (experts.grad.abs().sum((1, 2)) > 0).tolist()


def test_an_outcomes_own_experts_are_its_own():
    assert taught(levels=1) == [True, True, False, False, True]
    assert taught(levels=2) == [True] * 5, "through the shared gate, level by level"
