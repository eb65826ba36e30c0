"""ESMM against its paper: products along the chain, learned on all rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
KINDS = ("binary", "continuous", "binary", "binary")
SHAPE = Shape(2, (), ((0,), (1,), (2,)), KINDS, (0, 2, 3))
SMALL = {"width": 5, "layers": 1, "embedding": 2}


def rows_of(rows: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (rows, 4)).astype(float)
    features = (rng.normal(size=(rows, 2)), np.zeros((rows, 0)))
    return Batch.of(*features, np.arange(rows) % 3, y)


def slow_towers(net, x: np.ndarray, arm: int) -> np.ndarray:
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    given = w["fields.arms.table"][arm - 1] if arm else np.zeros(2)
    answers = []
    for k in range(4):
        read = x @ w["towers.0.features.weight"][k] + given @ w["towers.0.arm"][k]
        read = np.maximum(read + w["towers.0.features.bias"][k, 0], 0)
        answers.append((read @ w["towers.2.0.weight"][k] + w["towers.2.0.bias"][k, 0])[0])
    return np.array(answers)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_a_step_is_the_product_of_the_steps_up_to_it():
    net, rows = build("esmm", SHAPE, SMALL, seed=1), rows_of()
    with torch.no_grad():
        outcomes = net.potential_outcomes(rows.x_num, rows.x_cat)
    for row, x in enumerate(rows.x_num.double().numpy()):
        for arm in range(3):
            towers = slow_towers(net, x, arm)
            expected = np.array([0.0, towers[1], 0.0, 0.0])
            expected[[0, 2, 3]] = np.cumprod(sigmoid(towers[[0, 2, 3]]))
            np.testing.assert_allclose(outcomes[row, arm], expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_cross_entropy_of_the_products_over_all_rows():
    shape = Shape(2, (), SHAPE.levels, ("binary", "binary"), (0, 1))
    net = build("esmm", shape, SMALL, seed=1)
    y = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], dtype=float)
    x, arm = np.random.default_rng(0).normal(size=(4, 2)), np.array([0, 1, 2, 0])
    rows = Batch.of(x, np.zeros((4, 0)), arm, y)
    with torch.no_grad():
        click, buy = net.answer(net.fields.given(rows)).double().numpy().T
        loss = float(net(rows)["loss"])
    chances = np.stack([sigmoid(click), sigmoid(click) * sigmoid(buy)], axis=1)
    entropy = -(y * np.log(chances) + (1 - y) * np.log(1 - chances))
    assert loss == pytest.approx(entropy.mean(axis=0).sum(), rel=1e-5)
