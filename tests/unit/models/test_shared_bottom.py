"""The shared bottom: what outcomes share, and what they don't."""

from __future__ import annotations

import numpy as np
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
SHAPE = Shape(2, (), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"width": 5, "tower": 4, "embedding": 2}


def rows_of(rows: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (rows, 2)).astype(float)
    return Batch.of(rng.normal(size=(rows, 2)), np.zeros((rows, 0)), np.arange(rows) % 3, y)


def test_the_equations_written_out():
    net, rows = build("shared_bottom", SHAPE, SMALL, seed=1), rows_of()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    arms = np.concatenate([np.zeros((1, 2)), w["fields.arms.table"]])
    expected = np.zeros((6, 3, 2))
    for row, x in enumerate(rows.x_num.double().numpy()):
        for arm in range(3):
            read = x @ w["bottom.0.features.weight"][0] + arms[arm] @ w["bottom.0.arm"][0]
            read = np.maximum(read + w["bottom.0.features.bias"][0, 0], 0)
            read = np.maximum(read @ w["bottom.2.0.weight"][0] + w["bottom.2.0.bias"][0, 0], 0)
            for task in range(2):
                tower = read @ w["towers.0.weight"][task] + w["towers.0.bias"][task, 0]
                tower = np.maximum(tower, 0) @ w["towers.2.weight"][task]
                expected[row, arm, task] = (tower + w["towers.2.bias"][task, 0])[0]
    with torch.no_grad():
        np.testing.assert_allclose(
            net.links(rows.x_num, rows.x_cat), expected, rtol=1e-4, atol=1e-6
        )


def test_outcomes_share_the_bottom_and_no_tower():
    net, rows = build("shared_bottom", SHAPE, SMALL, seed=1), rows_of()
    net.outcome_loss(net.factual(rows), rows)[:, 0].mean().backward()
    assert net.bottom[0].features.weight.grad.abs().sum() > 0
    taught = net.towers[0].weight.grad.abs().sum((1, 2)) > 0
    assert taught.tolist() == [True, False]
