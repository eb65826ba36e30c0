"""Nets with a natural response and effects: how the two make links, losses and parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.data import Batch, Shape
from models.explicit import ExplicitNet

torch.set_num_threads(1)
SHAPE = Shape(2, (), ((0,), (1,), (2,)), ("binary", "continuous"))


class Linear(ExplicitNet):
    """Natural response and effects that are linear in the features."""

    def __init__(self, loss: str = "mse", stop: bool = False) -> None:
        super().__init__(SHAPE, loss, stop)
        self.natural, self.effects = nn.Linear(2, 2), nn.Linear(2, 4)

    def tiers(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        return self.natural(x_num), self.effects(x_num).unflatten(1, (2, 2))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rows(arm: list[int]) -> Batch:
    rng = np.random.default_rng(1)
    size = len(arm)
    y = np.stack([rng.integers(0, 2, size), rng.normal(size=size)], axis=1).astype(float)
    y[0, 1] = np.nan
    weight = rng.uniform(0.5, 1.5, size)
    return Batch.of(rng.normal(size=(size, 2)), np.zeros((size, 0)), np.array(arm), y, None, weight)


@pytest.mark.parametrize("stop", [True, False])
def test_the_given_arm_has_its_own_link(stop):
    net, batch = Linear(stop=stop), rows([0, 1, 2, 2, 0, 1])
    links = net.links(batch.x_num, batch.x_cat)
    expected = torch.stack([links[row, arm] for row, arm in enumerate(batch.arm)])
    torch.testing.assert_close(net.factual(batch), expected)


def test_an_effect_moves_its_own_arm_only():
    net, batch = Linear(), rows([0, 1, 2])
    before = net.links(batch.x_num, batch.x_cat)
    with torch.no_grad():
        net.effects.bias[2] += 1.5  # arm 2, outcome 0
    moved = net.links(batch.x_num, batch.x_cat) - before
    expected = torch.zeros(3, 3, 2)
    expected[:, 2, 0] = 1.5
    torch.testing.assert_close(moved, expected)


def test_the_loss_is_a_mean_over_the_rows_split_by_treatment():
    net, batch = Linear("bce"), rows([0, 1, 2, 0, 1])
    with torch.no_grad():
        links, terms = net.factual(batch).double().numpy(), net(batch)
    y, seen, weight = (v.double().numpy() for v in (batch.y, batch.y_mask, batch.weight))
    entropy = np.logaddexp(0, links[:, 0]) - y[:, 0] * links[:, 0]
    squared = (links[:, 1] - y[:, 1]) ** 2
    row_loss = weight * (seen[:, 0] * entropy + seen[:, 1] * squared)
    control = np.array([True, False, False, True, False])
    assert float(terms["control"]) == pytest.approx(row_loss[control].sum() / 5, rel=1e-5)
    assert float(terms["treated"]) == pytest.approx(row_loss[~control].sum() / 5, rel=1e-5)
    assert float(terms["loss"]) == pytest.approx(row_loss.sum() / 5, rel=1e-5)


@pytest.mark.parametrize("stop", [True, False])
def test_treated_rows_teach_the_natural_response_unless_stopped(stop):
    net = Linear(stop=stop)
    net(rows([1, 2, 1, 2]))["loss"].backward()
    assert (net.natural.weight.grad.abs().max() == 0) == stop
    assert net.effects.weight.grad.abs().min() > 0
    net.zero_grad()
    net(rows([0, 0, 0]))["loss"].backward()
    assert net.natural.weight.grad.abs().max() > 0
    assert net.effects.weight.grad.abs().max() == 0, "control rows know nothing of effects"


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_parts_add_up_to_the_potential_outcomes(loss):
    net, batch = Linear(loss), rows([0, 1, 2, 0])
    net.start_from([0.3, 0.0])
    with torch.no_grad():
        outcomes = net.potential_outcomes(batch.x_num, batch.x_cat)
        parts = net.parts(batch.x_num, batch.x_cat)
    torch.testing.assert_close(parts["natural"], outcomes[:, 0])
    torch.testing.assert_close(parts["natural"][:, None] + parts["effects"], outcomes[:, 1:])
