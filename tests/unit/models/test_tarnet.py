"""TARNet and CFR against Shalit et al.: eq. 3 written out slowly, special cases, balance that works."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.balance import MEASURES, imbalance
from models.data import Batch, Shape
from models.nets.cfr import CFR, CFRConfig
from models.nets.tarnet import TARNet, TARNetConfig

torch.set_num_threads(1)
SHAPE = Shape(3, (4, 2), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"embedding": 3, "width": 6, "hidden": 5, "loss": "mse"}


def rows_of(shape: Shape = SHAPE, rows: int = 30) -> Batch:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, size, rows) for size in shape.categories]
    y = np.stack([rng.integers(0, 2, rows), rng.normal(size=rows)], axis=1).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    return Batch.of(
        rng.normal(size=(rows, shape.numeric)),
        np.stack(ids, axis=1),
        rng.integers(0, shape.arms, rows),
        y,
        rng.uniform(0.05, 1.0, rows),
        rng.uniform(0.5, 1.5, rows),
    )


def tarnet(seed: int = 0, **settings) -> TARNet:
    torch.manual_seed(seed)
    return TARNet(SHAPE, TARNetConfig(**{**SMALL, **settings}))


def cfr(seed: int = 0, **settings) -> CFR:
    torch.manual_seed(seed)
    return CFR(SHAPE, CFRConfig(**{**SMALL, **settings}))


def slow_links(net: TARNet, batch: Batch) -> np.ndarray:
    """h(phi(x), t) row by row and arm by arm, [B, A, K]."""
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    links = np.zeros((len(batch), SHAPE.arms, SHAPE.outcome_count))
    table = w["representation.features.embedding.table.weight"]
    for row in range(len(batch)):
        first, second = batch.x_cat[row].tolist()
        x = np.concatenate([batch.x_num[row].double().numpy(), table[first], table[4 + second]])
        at = "representation.layers.0."
        x = np.maximum(w[at + "0.weight"] @ x + w[at + "0.bias"], 0)
        phi = np.maximum(w[at + "2.weight"] @ x + w[at + "2.bias"], 0)
        for arm in range(SHAPE.arms):
            hidden = phi @ w["heads.0.weight"][arm] + w["heads.0.bias"][arm, 0]
            hidden = np.maximum(hidden, 0)
            links[row, arm] = hidden @ w["heads.2.weight"][arm] + w["heads.2.bias"][arm, 0]
    return links


def slow_factual(net: TARNet, batch: Batch, weights: np.ndarray) -> float:
    links, total = slow_links(net, batch), 0.0
    for row in range(len(batch)):
        for k in range(SHAPE.outcome_count):
            if batch.y_mask[row, k]:
                error = links[row, int(batch.arm[row]), k] - float(batch.y[row, k])
                total += weights[row] * error**2
    return total / len(batch)


def test_a_shared_representation_and_a_head_an_arm():
    net, batch = tarnet(), rows_of()
    with torch.no_grad():
        links = net.links(batch.x_num, batch.x_cat)
    np.testing.assert_allclose(links, slow_links(net, batch), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_first_term_of_equation_3():
    net, batch = tarnet(), rows_of()
    with torch.no_grad():
        loss = float(net(batch)["loss"])
    assert loss == pytest.approx(slow_factual(net, batch, batch.weight.numpy()), rel=1e-4)


def test_equal_arms_weighs_by_the_logged_propensity():
    net, batch = tarnet(equal_arms=True), rows_of()
    with torch.no_grad():
        loss = float(net(batch)["loss"])
    weights = batch.weight.numpy() * np.minimum(1 / (3 * batch.propensity.numpy()), 10)
    assert loss == pytest.approx(slow_factual(net, batch, weights), rel=1e-4)
    batch.propensity = torch.full_like(batch.propensity, 1 / 3)
    with torch.no_grad():
        even, plain = net(batch)["loss"], tarnet()(batch)["loss"]
    torch.testing.assert_close(even, plain, msg="arms that are equally likely count alike already")


@pytest.mark.parametrize("penalty", MEASURES)
def test_cfr_adds_alpha_times_the_imbalance_of_the_representation(penalty):
    net, batch = cfr(penalty=penalty, alpha=0.7), rows_of()
    with torch.no_grad():
        terms, plain = net(batch), tarnet()(batch)["loss"]
        phi = net.representation(batch.x_num, batch.x_cat)
        apart = imbalance(penalty, phi, batch.arm, batch.weight, 3, 512)
    torch.testing.assert_close(terms["factual"], plain)
    torch.testing.assert_close(terms["imbalance"], apart)
    torch.testing.assert_close(terms["loss"], plain + 0.7 * apart)
    assert float(apart) > 0


def test_cfr_without_a_penalty_is_tarnet():
    net, plain, batch = cfr(alpha=0.0), tarnet(), rows_of()
    assert {n: p.shape for n, p in net.named_parameters()} == {
        n: p.shape for n, p in plain.named_parameters()
    }
    for each in (net, plain):
        each(batch)["loss"].backward()
    for mine, theirs in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_the_penalty_moves_the_trunk_only():
    batch = rows_of()
    free, held = cfr(alpha=0.0), cfr(alpha=50.0)
    for each in (free, held):
        each(batch)["loss"].backward()
    same = {
        name: torch.allclose(mine.grad, theirs.grad)
        for (name, mine), theirs in zip(free.named_parameters(), held.parameters())
    }
    assert all(same[name] for name in same if name.startswith("heads."))
    assert not any(same[name] for name in same if name.endswith("0.weight") and "heads" not in name)


@pytest.mark.parametrize("penalty", MEASURES)
def test_what_only_the_assignment_depends_on_leaves_the_representation(penalty):
    """Who is treated depends on z, the effect on x: arms become alike and the effect is kept."""
    from models.training import InMemoryBatches, TrainConfig, fit

    rng = np.random.default_rng(1)
    shape = Shape(2, (), ((0,), (1,)), ("continuous",))
    x = rng.normal(size=(3000, 2))
    chance = 1 / (1 + np.exp(-1.5 * x[:, 1]))
    arm = (rng.random(3000) < chance).astype(int)
    effect = 0.5 + (x[:, 0] > 0)
    y = (arm * effect + 0.3 * rng.normal(size=3000))[:, None]
    rows = Batch.of(x, np.zeros((3000, 0)), arm, y, np.where(arm, chance, 1 - chance))

    def trained(alpha: float) -> tuple[float, float]:
        torch.manual_seed(0)
        net = CFR(shape, CFRConfig(width=16, hidden=16, penalty=penalty, alpha=alpha))
        config = TrainConfig(epochs=8, learning_rate=1e-2, batch_size=128)
        losses = iter(range(0, -8, -1))  # every epoch is the best so far: it ends with the last
        fit(net, InMemoryBatches(rows, 128), lambda _: {"loss": next(losses)}, config)
        with torch.no_grad():
            links = net.links(rows.x_num, rows.x_cat)[..., 0].numpy()
            phi = net.representation(rows.x_num, rows.x_cat)
            apart = imbalance(penalty, phi, rows.arm, rows.weight, 2, 1000)
        error = np.sqrt(np.mean((links[:, 1] - links[:, 0] - effect) ** 2))
        return float(apart), float(error)

    free, held = trained(0.0), trained(0.3)
    assert held[0] < 0.6 * free[0]
    assert held[1] < 0.25, "the spread of the effect is 0.5"
