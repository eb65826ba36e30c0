"""MMoE against its paper: experts, gates and towers written out slowly."""

from __future__ import annotations

import numpy as np
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
SHAPE = Shape(2, (), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"width": 5, "experts": 3, "tower": 4, "embedding": 2}


def rows_of(rows: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (rows, 2)).astype(float)
    return Batch.of(rng.normal(size=(rows, 2)), np.zeros((rows, 0)), np.arange(rows) % 3, y)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def test_the_equations_written_out():
    net, rows = build("mmoe", SHAPE, SMALL, seed=1), rows_of()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    arms = np.concatenate([np.zeros((1, 2)), w["fields.arms.table"]])

    def read(layer: str, copy: int, x: np.ndarray, arm: int) -> np.ndarray:
        made = x @ w[layer + ".features.weight"][copy] + arms[arm] @ w[layer + ".arm"][copy]
        return made + w[layer + ".features.bias"][copy, 0]

    expected = np.zeros((6, 3, 2))
    for row, x in enumerate(rows.x_num.double().numpy()):
        for arm in range(3):
            experts = [
                relu(
                    relu(read("experts.0", e, x, arm)) @ w["experts.2.0.weight"][e]
                    + w["experts.2.0.bias"][e, 0]
                )
                for e in range(3)
            ]
            for task in range(2):
                gate = np.exp(read("gates", task, x, arm))
                found = sum(g * e for g, e in zip(gate / gate.sum(), experts))
                tower = relu(found @ w["towers.0.weight"][task] + w["towers.0.bias"][task, 0])
                answer = tower @ w["towers.2.weight"][task] + w["towers.2.bias"][task, 0]
                expected[row, arm, task] = answer[0]
    with torch.no_grad():
        np.testing.assert_allclose(
            net.links(rows.x_num, rows.x_cat), expected, rtol=1e-4, atol=1e-6
        )


def test_outcomes_share_every_expert_and_no_gate():
    net, rows = build("mmoe", SHAPE, SMALL, seed=1), rows_of(60)
    net.outcome_loss(net.factual(rows), rows)[:, 0].mean().backward()
    assert (net.experts[0].features.weight.grad.abs().sum((1, 2)) > 0).all()
    taught = net.gates.features.weight.grad.abs().sum((1, 2)) > 0
    assert taught.tolist() == [True, False]
