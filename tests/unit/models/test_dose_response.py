"""Dose response: curves against scipy, monotone by construction, better than unordered arms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from campaigns.worlds.discount import Discount
from models.catalog import build
from models.data import Batch, OutcomeScaler, Shape
from models.splines import i_splines
from models.training import InMemoryBatches, TrainConfig, fit, predict

torch.set_num_threads(1)
KINDS = ("binary", "continuous")


def grid(steps: int, **changes: Any) -> Shape:
    """One dose of that many levels."""
    doses = (tuple(np.linspace(0, 1, steps).tolist()),)
    levels = tuple((level,) for level in range(steps))
    return replace(Shape(5, (3,), levels, KINDS, doses=doses), **changes)


def regridded(net: torch.nn.Module, name: str, shape: Shape, config: dict[str, Any]) -> Any:
    """The same weights over another grid."""
    other = build(name, shape, config, seed=9)
    other.load_state_dict(net.state_dict())
    return other.eval()


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_the_curves_are_those_of_ramsay(pieces):
    """Sums of scipy's B-splines, which are the integrals of M-splines of one degree less."""
    x = np.linspace(0, 1, 201)
    knots = np.r_[[0.0] * 3, np.linspace(0, 1, pieces + 1), [1.0] * 3]
    basis = BSpline.design_matrix(x, knots, 3).toarray()
    expected = np.stack([basis[:, j:].sum(1) for j in range(1, basis.shape[1])], axis=1)
    found = i_splines(torch.tensor(x), pieces).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.diff(found, axis=0) >= -1e-6).all()
    low, high = i_splines(torch.tensor([-1.0, 2.0]), pieces)
    assert low.tolist() == [0.0] * (pieces + 2)
    assert high.tolist() == [1.0] * (pieces + 2)


def loud(response: str, seed: int, scale: float) -> Any:
    """A net of large random weights over a fine grid, and what it answers: [40, 101, K]."""
    net = build("dose_response", grid(101), {"response": response, "width": 8}, seed=seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(scale)
        x_num = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed))
        return net.potential_outcomes(x_num, torch.arange(40)[:, None] % 3)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["increasing", "decreasing", "monotone"]), st.integers(0, 99), st.floats(1, 6)
)
def test_every_unit_responds_in_one_direction(response, seed, scale):
    answer = loud(response, seed, scale)
    steps = answer.diff(dim=1) / answer.abs().amax((0, 1)).clamp(min=1.0)
    up, down = (steps >= -1e-6).all(1), (steps <= 1e-6).all(1)
    assert (up | down).all()
    assert response == "monotone" or (up if response == "increasing" else down).all()


def test_a_learned_direction_differs_between_units_and_a_free_one_turns():
    steps = loud("monotone", 1, 4.0)[..., 1].diff(dim=1)
    assert (steps.amax(1) > 0.01).any()
    assert (steps.amin(1) < -0.01).any()
    steps = loud("free", 1, 4.0)[..., 1].diff(dim=1)
    assert ((steps.amax(1) > 0.01) & (steps.amin(1) < -0.01)).any()


@pytest.mark.parametrize("name", ["dose_response", "s_learner", "m3e2"])
def test_rows_are_learned_from_at_the_dose_that_was_given(name):
    """The loss at exact doses is that of arms with these doses."""
    levels = ((0, 0), (1, 0), (2, 1), (1, 1))
    shape = grid(3, levels=levels, doses=((0.0, 0.5, 1.0), ()))
    fine = replace(
        shape,
        levels=((0, 0), (1, 0), (2, 0), (3, 1), (1, 1)),
        doses=((0.0, 0.3, 0.5, 1.0), ()),
    )
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(4, 5)), rng.integers(0, 3, (4, 1))
    y = np.column_stack([rng.integers(0, 2, 4), rng.normal(size=4)]).astype(float)
    net = build(name, shape, seed=1).eval()
    told = np.array([[0.0, -1], [0.3, -1], [-1, -1], [0.3, -1]])
    exact = Batch.of(*columns, np.array([0, 1, 2, 3]), y, dose=told)
    arms = Batch.of(*columns, np.array([0, 1, 3, 4]), y)
    finer = regridded(net, name, fine, {})
    with torch.no_grad():
        torch.testing.assert_close(net.factual(exact), finer.factual(arms))
        torch.testing.assert_close(net.loss(exact)["loss"], finer.loss(arms)["loss"])
        links = finer.links(arms.x_num, arms.x_cat)
    torch.testing.assert_close(finer.factual(arms), links[torch.arange(4), arms.arm])


def test_a_dose_has_an_effect_beside_the_levels_of_another_factor():
    """Effects of factors add up in link space."""
    levels = ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2))
    shape = grid(2, levels=levels, doses=((0.0, 1.0), ()))
    net = build("dose_response", shape, seed=1)
    with torch.no_grad():
        links = net.links(torch.randn(7, 5), torch.zeros(7, 1, dtype=torch.int64))
    effects = links - links[:, :1]
    torch.testing.assert_close(effects[:, 3], effects[:, 1] + effects[:, 2])
    torch.testing.assert_close(effects[:, 5], effects[:, 1] + effects[:, 4])
    assert (effects[:, 1:].abs() > 1e-6).all()


def columns(shoppers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Features of the world, on about one scale."""
    numbers = np.column_stack(
        [
            np.log1p(shoppers["visits_30d"]),
            shoppers["days_since_order"] / 10,
            3 * shoppers["promo_share"] - 1.5,
            2.5 * (np.log(shoppers["basket"]) - 3.8),
            shoppers["minutes"].fillna(6.0) / 4 - 1.5,
        ]
    )
    return numbers, shoppers["device"].map({"app": 0, "desktop": 1, "mobile": 2}).to_numpy()[
        :, None
    ]


def trained(name: str, shape: Shape, world: Discount, rows: int, seed: int) -> Any:
    """A net taught by a log of the world, and the scaling of its outcomes."""
    log = world.log(rows, seed=seed)
    arm = np.array([world.arms.index(given) for given in log["discount"]])
    y = log[list(world.outcomes)].to_numpy()
    x_num, x_cat = columns(log)
    scaler = OutcomeScaler.fit(y, KINDS)
    cut = rows * 4 // 5
    parts = [
        Batch.of(x_num[part], x_cat[part], arm[part], scaler.apply(y[part]))
        for part in (slice(cut), slice(cut, None))
    ]
    net = build(name, shape, seed=seed)
    net.start_from(scaler.start)
    config = TrainConfig(epochs=10, learning_rate=5e-3)
    fit(
        net,
        InMemoryBatches(parts[0], 128),
        lambda n: {"loss": float(n.loss(parts[1])["loss"])},
        config,
    )
    return net, scaler


def errors(net: Any, scaler: OutcomeScaler, world: Discount, seed: int) -> np.ndarray:
    """PEHE of each treated arm and outcome over that of the best constant, [A - 1, K]."""
    shoppers = world.units(3000, seed=seed + 1000)
    doses = np.array(net.shape.doses[0] if net.shape.doses else world.doses)
    truth = world.response(shoppers, doses)
    found = scaler.restore(predict(net, *columns(shoppers)))
    effect, guess = truth[:, 1:] - truth[:, :1], found[:, 1:] - found[:, :1]
    constant = np.sqrt(((effect - effect.mean(0)) ** 2).mean(0))
    return np.sqrt(((guess - effect) ** 2).mean(0)) / constant


def test_where_data_is_scarce_an_order_beats_arms_without_one():
    """Errors relative to the best constant of each dose, mean over seeds; both outcomes."""
    world, steps = Discount(), 7
    found = {}
    for name, shape in (
        ("dose_response", grid(steps)),
        ("s_learner", grid(steps, doses=())),
        ("t_learner", grid(steps, doses=())),
    ):
        runs = [errors(*trained(name, shape, world, 3000, s), world, s) for s in range(2)]
        found[name] = np.mean(runs, axis=(0, 1))
    for name in ("s_learner", "t_learner"):
        assert (found["dose_response"] < 0.85 * found[name]).all(), found


@pytest.mark.parametrize("name", ["dose_response", "s_learner"])
def test_doses_between_those_of_the_log_are_answered_as_well(name):
    """A log of 0, 10, 20 and 30 percent teaches 5, 15 and 25."""
    world = Discount(steps=4)
    net, scaler = trained(name, grid(4), world, 6000, seed=0)
    error = errors(regridded(net, name, grid(7), {}), scaler, world, seed=0)
    seen, unseen = error[1::2].mean(0), error[0::2].mean(0)
    assert (unseen < 1.4 * seen).all(), (unseen, seen)
    assert (error < 1.0).all(), error
