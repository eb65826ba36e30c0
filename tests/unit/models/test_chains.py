"""Chains of outcomes: no step is likelier than the one before, whatever the net."""

from __future__ import annotations

import pytest
import torch

from models.catalog import build, catalog
from models.chains import chain, chained, given_before, log_reached, logit_of_log
from models.data import Shape
from tests.unit.models.test_nets import make_batch

torch.set_num_threads(1)
ARMS = ((0,), (1,), (2,))
KINDS = ("binary", "binary", "continuous", "binary")
SHAPE = Shape(3, (4, 2), ARMS, KINDS, (0, 1, 3))
NETS = sorted(name for name, entry in catalog().items() if getattr(entry.net, "chains", False))


def test_an_amount_is_no_step_of_a_chain() -> None:
    kinds = ("binary", "continuous", "binary", "binary")
    assert chain(Shape(1, (), ARMS, kinds, (2, 0, 1))) == (2, 0)
    assert chain(Shape(1, (), ARMS, kinds)) == ()


def test_chances_along_a_chain_are_products() -> None:
    conditional = torch.randn(5, 3)
    chances = conditional.sigmoid().cumprod(1)
    torch.testing.assert_close(log_reached(conditional).exp(), chances)
    torch.testing.assert_close(logit_of_log(log_reached(conditional)), torch.logit(chances))
    links = torch.cat([conditional, torch.full((5, 1), 7.0)], dim=1)[:, [0, 3, 1, 2]]
    steps = torch.tensor([0, 2, 3])
    reached = chained(links, steps)
    torch.testing.assert_close(reached[:, steps], torch.logit(chances))
    torch.testing.assert_close(reached[:, 1], links[:, 1])


def test_hopeless_and_certain_chains_have_finite_links_and_gradients() -> None:
    conditional = torch.tensor([[200.0, 90.0], [-200.0, -90.0], [40.0, -40.0]], requires_grad=True)
    links = logit_of_log(log_reached(conditional))
    links.sum().backward()
    assert torch.isfinite(links).all()
    assert torch.isfinite(conditional.grad).all()  # type: ignore[arg-type]
    torch.testing.assert_close(links[1].detach(), torch.tensor([-200.0, -290.0]))


def test_rates_along_a_chain() -> None:
    rates = torch.tensor([0.4, 0.2, 0.7, 0.05])
    torch.testing.assert_close(
        given_before(rates, torch.tensor([0, 1, 3])), torch.tensor([0.4, 0.5, 0.25])
    )
    assert given_before(torch.zeros(2), torch.tensor([0, 1])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", NETS)
def test_training_starts_at_the_means(name: str) -> None:
    net = build(name, SHAPE, seed=1)
    net.start_from([0.4, 0.2, 0.0, 0.05])  # type: ignore[operator]
    with torch.no_grad():
        outcomes = net.respond(torch.zeros(2, 1, 4))  # type: ignore[operator]
    torch.testing.assert_close(outcomes[0, 0], torch.tensor([0.4, 0.2, 0.0, 0.05]))


@pytest.mark.parametrize("name", NETS)
def test_no_step_is_likelier_than_the_one_before(name: str) -> None:
    net = build(name, SHAPE, seed=1).eval()
    net.start_from([0.1, 0.08, 0.0, 0.05])  # type: ignore[operator]
    rows = make_batch(SHAPE, 60, seed=1)
    with torch.no_grad():
        outcomes = net.potential_outcomes(3 * rows.x_num, rows.x_cat)  # type: ignore[operator]
    assert (outcomes[..., [0, 1, 3]].diff(dim=-1) <= 1e-6).all()


def test_squared_errors_take_outcomes_side_by_side() -> None:
    net = build("mtmt", SHAPE, {"loss": "mse"}, seed=1)
    assert len(net.steps) == 0  # type: ignore[arg-type]
