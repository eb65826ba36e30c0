"""Single-task networks: each outcome's is a network of its own, written out slowly."""

from __future__ import annotations

import numpy as np
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
SHAPE = Shape(2, (3,), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"width": 5, "embedding": 2, "layers": 2}


def rows_of(rows: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (rows, 2)).astype(float)
    ids = rng.integers(0, 3, (rows, 1))
    return Batch.of(rng.normal(size=(rows, 2)), ids, np.arange(rows) % 3, y)


def test_each_outcome_has_the_network_written_out():
    net, rows = build("single_task", SHAPE, SMALL, seed=1), rows_of()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    expected = np.zeros((6, 3, 2))
    for row in range(6):
        for arm in range(3):
            for task in range(2):
                own = slice(2 * task, 2 * task + 2)  # its part of each embedding
                given = w["fields.arms.table"][arm - 1, own] if arm else np.zeros(2)
                category = w["fields.embedding.table.weight"][int(rows.x_cat[row, 0]), own]
                x = np.concatenate([rows.x_num[row].double().numpy(), category])
                hidden = (
                    x @ w["networks.0.features.weight"][task] + given @ w["networks.0.arm"][task]
                )
                hidden = np.maximum(hidden + w["networks.0.features.bias"][task, 0], 0)
                for layer in ("0", "2"):
                    hidden = hidden @ w[f"networks.2.{layer}.weight"][task]
                    hidden = hidden + w[f"networks.2.{layer}.bias"][task, 0]
                    hidden = np.maximum(hidden, 0) if layer == "0" else hidden
                expected[row, arm, task] = hidden[0]
    with torch.no_grad():
        np.testing.assert_allclose(
            net.links(rows.x_num, rows.x_cat), expected, rtol=1e-4, atol=1e-6
        )


def test_an_outcome_teaches_no_other():
    net, rows = build("single_task", SHAPE, SMALL, seed=1), rows_of()
    before = net.links(rows.x_num, rows.x_cat).detach()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    net.outcome_loss(net.factual(rows), rows)[:, 0].mean().backward()
    optimizer.step()
    after = net.links(rows.x_num, rows.x_cat).detach()
    assert torch.equal(after[..., 1], before[..., 1])
    assert not torch.allclose(after[..., 0], before[..., 0])
