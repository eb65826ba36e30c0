"""Members of one net as one program: the numbers of members on their own."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.catalog import build, catalog
from models.ensemble import Ensemble, exponential
from models.nets.base import Net, NetConfig
from tests.unit.models.test_nets import example, make_batch

torch.set_num_threads(1)
NETS = sorted(
    name
    for name, entry in catalog().items()
    if issubclass(entry.config, NetConfig) and entry.answers == "outcomes"
)


def alone(name: str, count: int = 3) -> list[Net]:
    nets = [build(name, example(name), {"members": 1}, seed=seed) for seed in range(count)]
    return [net.eval() for net in nets]  # type: ignore[misc]


@pytest.mark.parametrize("name", NETS)
def test_members_answer_and_learn_as_they_would_alone(name: str) -> None:
    nets = alone(name)
    batch = make_batch(example(name), 40, seed=1)
    own = torch.stack([net.potential_outcomes(batch.x_num, batch.x_cat) for net in nets])
    losses = [net.loss(batch)["loss"] for net in copy.deepcopy(nets)]
    ensemble = Ensemble(nets, share=False, bootstrap=False).eval()
    torch.testing.assert_close(ensemble.member_outcomes(batch.x_num, batch.x_cat), own)
    torch.testing.assert_close(ensemble.potential_outcomes(batch.x_num, batch.x_cat), own.mean(0))
    torch.testing.assert_close(ensemble.loss(batch)["loss"], torch.stack(losses).mean())


@pytest.mark.parametrize("share", ["trunk", "nothing"])
@pytest.mark.parametrize("name", NETS)
def test_every_weight_of_an_ensemble_learns_and_is_kept(name: str, share: str) -> None:
    shape, config = example(name), {"members": 3, "share": share}
    net = build(name, shape, config, seed=1)
    batch = make_batch(shape, 40, seed=1)
    net(batch)["loss"].backward()
    for weight, parameter in net.named_parameters():
        assert parameter.grad is not None, f"{weight} is outside the loss"
        assert torch.isfinite(parameter.grad).all(), weight
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = build(name, shape, config, seed=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        answers = [
            each.eval().potential_outcomes(batch.x_num, batch.x_cat) for each in (net, other)
        ]
    assert torch.equal(*answers)


def test_a_shared_trunk_is_held_once() -> None:
    shape = example("mtmt")
    one, shared, apart = (
        sum(p.numel() for p in build("mtmt", shape, config).parameters())
        for config in (
            {"members": 1},
            {"members": 4, "share": "trunk"},
            {"members": 4, "share": "nothing"},
        )
    )
    assert one < shared < apart == 4 * one


def test_members_that_weigh_units_differ_in_their_losses_in_training_alone() -> None:
    nets = alone("s_learner", 1)
    same = [copy.deepcopy(nets[0]) for _ in range(3)]
    ensemble = Ensemble(same, share=False, bootstrap=True)
    batch = make_batch(example("s_learner"), 200, seed=1)
    weight = exponential(batch.unit, 3)
    expected = [nets[0].loss(replace(batch, weight=batch.weight * w))["loss"] for w in weight]
    torch.testing.assert_close(ensemble.train().loss(batch)["loss"], torch.stack(expected).mean())
    torch.testing.assert_close(ensemble.eval().loss(batch)["loss"], nets[0].loss(batch)["loss"])


def test_weights_are_exponential_independent_and_a_units_own() -> None:
    units = torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 200_000))
    weight = exponential(units, 5)
    assert (weight > 0).all()
    torch.testing.assert_close(weight.mean(1), torch.ones(5), atol=0.02, rtol=0)
    torch.testing.assert_close(weight.var(1), torch.ones(5), atol=0.03, rtol=0)
    correlation = torch.corrcoef(weight) - torch.eye(5)
    assert correlation.abs().max() < 0.01
    consecutive = exponential(torch.arange(200_000), 2)
    assert torch.corrcoef(torch.stack([consecutive[0, 1:], consecutive[0, :-1]]))[0, 1].abs() < 0.01
    order = torch.randperm(len(units))
    assert torch.equal(exponential(units[order], 5), weight[:, order])
    assert torch.equal(exponential(units, 2), weight[:2])  # more members change none of the first
