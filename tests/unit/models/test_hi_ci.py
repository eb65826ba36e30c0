"""Hi-CI: its answers and losses written out, and latents that don't tell arms apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.catalog import build
from models.data import Batch, Shape
from models.nets.hi_ci import between_arms
from models.training import InMemoryBatches, TrainConfig, fit

torch.set_num_threads(1)
SHAPE = Shape(3, (4,), ((0, 0), (1, 0), (0, 1), (2, 1)), ("continuous", "continuous"))
SMALL = {"embedding": 2, "hidden": 5, "latent": 4, "width": 6}


def make_batch(rows: int = 8) -> Batch:
    rng = np.random.default_rng(0)
    y, ids = rng.normal(size=(rows, 2)), rng.integers(0, 4, (rows, 1))
    arm, weight = np.arange(rows) % 4, rng.uniform(0.5, 1.5, rows)
    return Batch.of(rng.normal(size=(rows, 3)), ids, arm, y, np.full(rows, 0.25), weight)


def slow_share(z: np.ndarray, arm: np.ndarray, weight: np.ndarray) -> float:
    """Of the variance of z [B], the share between arms."""
    mean = np.average(z, weights=weight)
    total = np.average((z - mean) ** 2, weights=weight) + 1e-6
    between = 0.0
    for a in np.unique(arm):
        own = arm == a
        between += weight[own].sum() * (np.average(z[own], weights=weight[own]) - mean) ** 2
    return between / weight.sum() / total


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def test_the_losses_written_out():
    config = {**SMALL, "decorrelation": 0.7, "reconstruction": 0.3}
    net = build("hi_ci", SHAPE, config, seed=1)
    batch = make_batch()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    row = batch.weight.double().numpy()
    ids = batch.x_cat.numpy()[:, 0]
    x = np.hstack([batch.x_num.double().numpy(), w["features.embedding.table.weight"][ids]])
    z = relu(layer("encode.2", relu(layer("encode.0", x))))
    rebuilt = layer("decode.2", relu(layer("decode.0", z)))
    reconstruction = (row * ((rebuilt - x) ** 2).mean(1)).mean()
    table, arm = w["arms.table"], batch.arm.numpy()
    arms = np.array([0 * table[0], table[0], table[2], table[1] + table[2]])
    read = relu(layer("read_latents", z)[:, None] + layer("read_arm", arms))
    links = layer("rest.2", relu(layer("rest.0", read)))
    squared = ((batch.y.double().numpy() - links[np.arange(8), arm]) ** 2).sum(1)
    decorrelation = np.mean([slow_share(z[:, j], arm, row) for j in range(4)])
    total = (row * squared).mean() + 0.3 * reconstruction + 0.7 * decorrelation
    with torch.no_grad():
        np.testing.assert_allclose(net.links(batch.x_num, batch.x_cat), links, atol=1e-5)
        terms = {name: float(term) for name, term in net(batch).items()}
    assert terms["reconstruction"] == pytest.approx(reconstruction, rel=1e-4)
    assert terms["decorrelation"] == pytest.approx(decorrelation, rel=1e-4)
    assert terms["loss"] == pytest.approx(total, rel=1e-4)


def test_the_share_between_arms_is_free_of_scale_and_one_where_arms_are_all_there_is():
    z, arm, weight = torch.randn(40, 3), torch.arange(40) % 4, torch.rand(40) + 0.5
    share = between_arms(z, arm, 5, weight)
    torch.testing.assert_close(between_arms(7.0 * z + 2.0, arm, 5, weight), share)
    told = between_arms(arm[:, None].float(), arm, 5, weight)
    torch.testing.assert_close(told, torch.tensor(1.0))
    assert between_arms(torch.ones(40, 2), arm, 5, weight) == 0
    assert 0 < share < 0.5


def test_latents_tell_arms_apart_less_the_more_that_costs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 4))
    arm = (rng.random(4000) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(int)
    y = x[:, 1:2] + 0.5 * arm[:, None] + 0.3 * rng.normal(size=(4000, 1))
    rows = Batch.of(x, np.zeros((4000, 0)), arm, y)
    shape = Shape(4, (), ((0,), (1,)), ("continuous",))
    right = []
    for weight in (0.0, 3.0):
        net = build("hi_ci", shape, {"decorrelation": weight, "reconstruction": 0.01}, seed=0)
        config = TrainConfig(epochs=8, batch_size=256, learning_rate=5e-3)
        fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, config)
        with torch.no_grad():
            z = net.latents(net.features(rows.x_num, rows.x_cat)).numpy()
            links = net.links(rows.x_num, rows.x_cat)[..., 0]
        reader = LogisticRegression(max_iter=500).fit(z[:2000], arm[:2000])
        right.append(reader.score(z[2000:], arm[2000:]))
        assert float((links[:, 1] - links[:, 0]).mean()) == pytest.approx(0.5, abs=0.15)
    assert right[0] > 0.75
    assert right[1] < right[0] - 0.1
