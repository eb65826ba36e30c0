"""DESCN against its paper: the losses of both networks, arm by arm, and what they are minimal at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape
from models.training import InMemoryBatches, TrainConfig, fit, predict

torch.set_num_threads(1)
SHAPE = Shape(2, (3,), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"members": 1, "embedding": 2, "width": 4, "hidden": 5}
START = [0.3, 0.0]


def rows_of(rows: int = 30) -> Batch:
    rng = np.random.default_rng(0)
    y = np.stack([rng.integers(0, 2, rows), rng.normal(size=rows)], axis=1).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    return Batch.of(
        rng.normal(size=(rows, 2)),
        rng.integers(0, 3, (rows, 1)),
        rng.integers(0, 3, rows),
        y,
        rng.uniform(0.2, 0.6, rows),
        rng.uniform(0.5, 1.5, rows),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def loss_of(link: float, y: float, outcome: int, bce: bool) -> float:
    """Of a link less the start, for outcome 0 (binary) or 1 (continuous)."""
    link = link + (np.log(START[0] / (1 - START[0])) if bce and outcome == 0 else START[outcome])
    if bce and outcome == 0:
        return np.logaddexp(0, link) - y * link
    return (link - y) ** 2


def entire_of(link: float, pi: float, target: float, given: bool, outcome: int, bce: bool) -> float:
    """Of the product pi mu for y 1[t = a]."""
    if bce and outcome == 0:
        product = pi * sigmoid(link + np.log(START[0] / (1 - START[0])))
        return -target * np.log(product) - (1 - target) * np.log(1 - product)
    return (pi * link - (target - START[outcome] if given else 0.0)) ** 2 / pi


@pytest.mark.parametrize("loss", ["bce", "mse"])
@pytest.mark.parametrize("propensity", ["logged", "learned"])
def test_the_losses_written_out(loss, propensity):
    settings = {"propensity_weight": 0.7, "cross_weight": 0.4, "response_weight": 0.2}
    config = {**SMALL, **settings, "loss": loss, "propensity": propensity}
    net, batch = build("descn", SHAPE, config, seed=1), rows_of()
    net.start_from(START)
    with torch.no_grad():
        terms = net(batch)
        phi = net.representation(batch.x_num, batch.x_cat)
        links = net.links(batch.x_num, batch.x_cat).double().numpy()
        effects = net.effects(phi).double().numpy()
        learned = net.propensity(phi).softmax(-1).double().numpy()
    expected = dict.fromkeys(("propensity", "entire", "cross", "response"), 0.0)
    for row in range(len(batch)):
        arm, weight = int(batch.arm[row]), float(batch.weight[row])
        pi = learned[row].copy()
        if propensity == "logged":
            rest = 1 - learned[row, arm]
            pi *= (1 - float(batch.propensity[row])) / rest
            pi[arm] = float(batch.propensity[row])
        expected["propensity"] -= weight * np.log(learned[row, arm])
        for k in range(2):
            if not batch.y_mask[row, k]:
                continue
            y, bce = float(batch.y[row, k]), loss == "bce"
            expected["response"] += weight * loss_of(links[row, arm, k], y, k, bce)
            for a in range(3):
                target, own = (y if a == arm else 0.0), a == arm
                expected["entire"] += weight * entire_of(
                    links[row, a, k], pi[a], target, own, k, bce
                )
                if a and arm == 0:
                    pseudo = links[row, a, k] - effects[a - 1, row, k]
                    expected["cross"] += weight * loss_of(pseudo, y, k, bce) / 2
                if a and arm == a:
                    pseudo = links[row, 0, k] + effects[a - 1, row, k]
                    expected["cross"] += weight * loss_of(pseudo, y, k, bce)
    for name, total in expected.items():
        assert float(terms[name]) == pytest.approx(total / len(batch), rel=1e-4), name
    weighted = 0.7 * terms["propensity"] + terms["entire"]
    weighted = weighted + 0.4 * terms["cross"] + 0.2 * terms["response"]
    torch.testing.assert_close(terms["loss"], weighted)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_the_entire_space_loss_is_least_at_the_expected_outcomes(loss):
    """One unit, all it might be given and answer, weighted by the probability of it."""
    net = build("descn", Shape(1, (), SHAPE.levels, ("binary",)), {**SMALL, "loss": loss})
    net.start_from([0.3])
    truth, pi = np.array([0.2, 0.5, 0.9]), np.array([0.6, 0.3, 0.1])
    arm, y = np.repeat([0, 1, 2], 2), np.tile([0.0, 1.0], 3)
    chance = pi[arm] * np.where(y > 0, truth[arm], 1 - truth[arm])
    nothing = np.zeros((6, 0))
    batch = Batch.of(np.zeros((6, 1)), nothing, arm, y[:, None], pi[arm], chance)
    links = torch.logit(torch.tensor(truth)) if loss == "bce" else torch.tensor(truth)
    links = (links.float() - net.start).requires_grad_()
    net.entire(
        links[None, :, None].expand(6, -1, -1), torch.tensor(pi).float(), batch
    ).sum().backward()
    torch.testing.assert_close(links.grad, torch.zeros(3), atol=1e-6, rtol=0)


def test_the_squared_entire_space_loss_averages_over_arms_what_the_given_arm_would_lose():
    net, batch = build("descn", SHAPE, {**SMALL, "loss": "mse"}, seed=1), rows_of()
    batch.y_mask.fill_(1)
    links, pi = torch.randn(30, 3, 2), torch.rand(30, 3).softmax(-1)
    own, given = net.given(batch.arm), links[torch.arange(30), batch.arm]
    expected = (pi[..., None] * links.square()).sum(1) - 2 * batch.y * given
    expected = expected + batch.y.square() / pi[own][:, None]
    actual = net.entire(links, pi, batch)
    torch.testing.assert_close(actual, expected.sum(1) * batch.weight)


def test_without_logged_propensities_each_row_teaches_its_own_arm():
    net, batch = build("descn", SHAPE, SMALL, seed=1), rows_of()
    batch.propensity.fill_(1)
    links = net.links(batch.x_num, batch.x_cat).detach().requires_grad_()
    chances = net.chances(torch.full((30, 3), 1 / 3), batch)
    net.entire(links, chances, batch).mean().backward()
    entire, links.grad = links.grad, None
    net.outcome_loss(links[torch.arange(30), batch.arm], batch).sum(1).mean().backward()
    torch.testing.assert_close(entire, links.grad, rtol=0.01, atol=1e-3)


def test_what_the_log_does_not_tell_is_shared_as_the_head_has_it():
    net, batch = build("descn", SHAPE, SMALL), rows_of(2)
    batch.arm, batch.propensity = torch.tensor([0, 2]), torch.tensor([0.5, 0.2])
    learned = torch.tensor([[0.2, 0.6, 0.2], [0.3, 0.1, 0.6]])
    expected = torch.tensor([[0.5, 0.375, 0.125], [0.6, 0.2, 0.2]])
    torch.testing.assert_close(net.chances(learned, batch), expected)
    sure = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.isfinite(net.chances(sure, batch)).all()


@pytest.mark.parametrize("propensity", ["logged", "learned"])
def test_the_products_teach_the_head_where_it_is_learned(propensity):
    config = {**SMALL, "propensity": propensity, "propensity_weight": 0.0}
    net = build("descn", SHAPE, config, seed=1)
    net(rows_of())["loss"].backward()
    assert net.propensity[0].weight.grad.any() == (propensity == "learned")


def test_the_pseudo_effect_is_what_the_cross_network_adds_to_control():
    net, batch = build("descn", SHAPE, SMALL, seed=1), rows_of()
    with torch.no_grad():
        parts = net.parts(batch.x_num, batch.x_cat)
        torch.nn.init.zeros_(net.effects[-1].weight)
        torch.nn.init.zeros_(net.effects[-1].bias)
        without = net.parts(batch.x_num, batch.x_cat)
    torch.testing.assert_close(parts["propensities"].sum(1), torch.ones(30))
    assert parts["pseudo"].shape == (30, 2, 2)
    assert parts["pseudo"].abs().max() > 0
    assert without["pseudo"].abs().max() == 0


@pytest.mark.parametrize("propensity", ["logged", "learned"])
def test_a_policy_that_treats_the_best_units_does_not_pass_for_an_effect(propensity):
    """Treated units would have answered more anyway: their mean says 1.5 and more, the effect is 0.5."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 3))
    chance = 1 / (1 + np.exp(-1.5 * x[:, 0]))
    arm = (rng.random(6000) < chance).astype(int)
    y = 1.2 * x[:, :1] + 0.5 * arm[:, None] + 0.3 * rng.normal(size=(6000, 1))
    assert y[arm == 1].mean() - y[arm == 0].mean() > 1.5
    given = np.where(arm == 1, chance, 1 - chance)
    rows = Batch.of(x, np.zeros((6000, 0)), arm, y, given)
    config = {"members": 1, "propensity": propensity}
    net = build("descn", Shape(3, (), ((0,), (1,)), ("continuous",)), config, seed=0)
    train = TrainConfig(epochs=6, learning_rate=5e-3)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, train)
    outcomes = predict(net, x, np.zeros((6000, 0)))
    assert np.mean(outcomes[:, 1] - outcomes[:, 0]) == pytest.approx(0.5, abs=0.15)
