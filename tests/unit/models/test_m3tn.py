"""M3TN against its paper: gates, experts and re-parametrised heads, one arm at a time."""

from __future__ import annotations

import numpy as np
import torch

from models.catalog import build
from models.data import Batch, Shape
from models.training import InMemoryBatches, TrainConfig, fit, predict

torch.set_num_threads(1)
SHAPE = Shape(2, (3,), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"members": 1, "width": 3, "experts": 4, "hidden": 5}


def features(rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, 2, generator=generator), torch.arange(rows)[:, None] % 3


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


def test_the_definition_written_out():
    """phi of every treatment and outcome is made, then read: links and gates are the same."""
    net = build("m3tn", SHAPE, SMALL, seed=1)
    x_num, x_cat = features()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    with torch.no_grad():
        links, parts = net.links(x_num, x_cat), net.parts(x_num, x_cat)
        tokens = net.tokens(x_num, x_cat).flatten(1)
        experts = net.mixture.experts(tokens).double().numpy()
    for row in range(5):
        logits = (w["mixture.gate.weight"] @ tokens[row].double().numpy()).reshape(3, 2, 4)
        answers = np.zeros((3, 2))
        for arm in range(3):
            for outcome in range(2):
                gate = softmax(logits[arm, outcome])
                phi = sum(gate[e] * experts[e, row] for e in range(4))
                head = arm * 2 + outcome
                answers[arm, outcome] = w["heads.weight"][head] @ phi + w["heads.bias"][head]
                np.testing.assert_allclose(parts["gates"][row, arm, outcome], gate, rtol=1e-4)
        np.testing.assert_allclose(links[row, 0], answers[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(links[row, 1:], answers[0] + answers[1:], rtol=1e-4, atol=1e-5)


def test_one_expert_is_a_shared_representation_whatever_the_gates():
    net = build("m3tn", SHAPE, {**SMALL, "experts": 1}, seed=1)
    x = features()
    with torch.no_grad():
        before = net.links(*x)
        net.mixture.gate.weight.add_(1.0)
        torch.testing.assert_close(net.links(*x), before)


def test_many_arms_never_make_a_representation_each():
    shape = Shape(4, (), tuple((level,) for level in range(200)), ("continuous",))
    net = build("m3tn", shape, {"members": 1}, seed=1)
    rng = np.random.default_rng(0)
    arm, y = rng.integers(0, 200, 64), rng.normal(size=(64, 1))
    batch = Batch.of(rng.normal(size=(64, 4)), np.zeros((64, 0)), arm, y)
    kept = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net(batch)["loss"].backward()
    assert max(kept) == 64 * 200 * 4, "a number for each expert; phi has 4 tokens of 16 instead"


def test_opposite_effects_of_two_arms_are_told_apart():
    """The natural response is large; arm 1 adds x0, arm 2 takes it away."""
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(6000, 2)), rng.integers(0, 3, 6000)
    truth = np.array([0.0, 1.0, -1.0]) * x[:, :1]
    y = 2 * np.sin(2 * x[:, 1:]) + truth[np.arange(6000), arm][:, None]
    y = y + 0.3 * rng.normal(size=(6000, 1))
    shape = Shape(2, (), ((0,), (1,), (2,)), ("continuous",))
    none = np.zeros((6000, 0))
    net = build("m3tn", shape, {"members": 1}, seed=0)
    batches = InMemoryBatches(Batch.of(x[:4000], none[:4000], arm[:4000], y[:4000]), 256)
    held_out = Batch.of(x[4000:], none[4000:], arm[4000:], y[4000:])
    config = TrainConfig(epochs=8, learning_rate=5e-3)
    fit(net, batches, lambda net: {"loss": float(net(held_out)["loss"])}, config)
    outcomes = predict(net, x[4000:], none[4000:])[..., 0]
    error = (outcomes - outcomes[:, :1]) - truth[4000:]
    assert np.sqrt(np.mean(error[:, 1:] ** 2)) < 0.2, "effects have a standard deviation of 1"
