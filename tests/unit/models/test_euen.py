"""EUEN against its definition: two networks that share nothing, one of them for the effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape
from models.training import InMemoryBatches, TrainConfig, fit, predict

torch.set_num_threads(1)
SHAPE = Shape(2, (3,), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"members": 1, "embedding": 2, "width": 4, "layers": 2}


def features(rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, 2, generator=generator), torch.arange(rows)[:, None] % 3


def slow_tower(w: dict[str, np.ndarray], tower: str, x: np.ndarray, category: int) -> np.ndarray:
    hidden = np.concatenate([x, w[f"{tower}.features.embedding.table.weight"][category]])
    for layer in (0, 2):
        at = f"{tower}.network.{layer}."
        hidden = np.maximum(w[at + "weight"] @ hidden + w[at + "bias"], 0)
    return w[f"{tower}.network.4.weight"] @ hidden + w[f"{tower}.network.4.bias"]


def test_the_networks_written_out():
    net = build("euen", SHAPE, SMALL, seed=1)
    x_num, x_cat = features()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    with torch.no_grad():
        links = net.links(x_num, x_cat)
    for row in range(5):
        x, category = x_num[row].double().numpy(), int(x_cat[row, 0])
        natural = slow_tower(w, "control", x, category)
        effects = slow_tower(w, "uplift", x, category).reshape(2, 2)  # arm by outcome
        np.testing.assert_allclose(links[row, 0], natural, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(links[row, 1:], natural + effects, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop", [True, False])
def test_treated_rows_leave_the_control_net_alone(stop):
    net = build("euen", SHAPE, {**SMALL, "stop": stop}, seed=1)
    x_num, x_cat = features(6)
    y = np.random.default_rng(0).normal(size=(6, 2))
    net(Batch.of(x_num.numpy(), x_cat.numpy(), np.array([1, 2] * 3), y))["loss"].backward()
    still = [name for name, p in net.named_parameters() if not p.grad.any()]
    assert {name.partition(".")[0] for name in still} == ({"control"} if stop else set())


def test_an_effect_unlike_the_natural_response_is_learned_for_each_arm():
    """The response is mostly natural; arm 1 adds x0, arm 2 takes it away."""
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(6000, 2)), rng.integers(0, 3, 6000)
    truth = np.array([0.0, 1.0, -1.0]) * x[:, :1]
    y = np.sin(2 * x[:, 1:]) + truth[np.arange(6000), arm][:, None]
    y = y + 0.3 * rng.normal(size=(6000, 1))
    shape = Shape(2, (), ((0,), (1,), (2,)), ("continuous",))
    none = np.zeros((6000, 0))
    net = build("euen", shape, {"members": 1}, seed=0)
    batches = InMemoryBatches(Batch.of(x[:4000], none[:4000], arm[:4000], y[:4000]), 256)
    held_out = Batch.of(x[4000:], none[4000:], arm[4000:], y[4000:])
    config = TrainConfig(epochs=8, learning_rate=5e-3)
    fit(net, batches, lambda net: {"loss": float(net(held_out)["loss"])}, config)
    outcomes = predict(net, x[4000:], none[4000:])[..., 0]
    error = (outcomes - outcomes[:, :1]) - truth[4000:]
    assert np.sqrt(np.mean(error[:, 1:] ** 2)) < 0.2, "effects have a standard deviation of 1"
