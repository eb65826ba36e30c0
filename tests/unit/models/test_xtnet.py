"""XTNet against its paper: the decomposition and the masks written out, every ablation, many arms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from models.balance import imbalance
from models.data import Batch, Shape
from models.nets.xtnet import MaskedLinear, XTNet, XTNetConfig

torch.set_num_threads(1)
LEVELS = ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1))
SHAPE = Shape(3, (4,), LEVELS, ("continuous", "continuous"))
LISTED = Shape(2, (), ((0, 0, 0), (0, 0, 2), (1, 0, 1), (1, 3, 2)), ("binary",))  # levels unseen
SMALL = {"embedding": 2, "width": 6, "hidden": 8, "effect_width": 4}


def xtnet(shape: Shape = SHAPE, seed: int = 0, **settings) -> XTNet:
    torch.manual_seed(seed)
    return XTNet(shape, XTNetConfig(**{**SMALL, **settings}))


def rows_of(shape: Shape = SHAPE, rows: int = 40) -> Batch:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, (rows, len(shape.categories)))
    y = rng.normal(size=(rows, shape.outcome_count))
    if shape.outcomes[0] == "binary":
        y = (y > 0).astype(float)
    weight = rng.uniform(0.5, 1.5, rows)
    x = rng.normal(size=(rows, shape.numeric))
    return Batch.of(x, ids, rng.integers(0, shape.arms, rows), y, None, weight)


def slow_links(net: XTNet, shape: Shape, phi: np.ndarray) -> np.ndarray:
    """BasicNet(beta(t)) + EffectNet(t), by loops over units, arms, outcomes and treatments."""
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    sizes = [max(column) for column in zip(*shape.levels)]
    outcomes = shape.outcome_count
    links = np.zeros((len(phi), shape.arms, outcomes))
    for row, arm in itertools.product(range(len(phi)), range(shape.arms)):
        h = np.maximum(w["basic.0.weight"] @ phi[row] + w["basic.0.bias"], 0)
        answers = (w["basic.2.weight"] @ h + w["basic.2.bias"]).reshape(1 + sum(sizes), outcomes)
        given = [
            sum(sizes[:factor]) + level - 1
            for factor, level in enumerate(shape.levels[arm])
            if level
        ]
        links[row, arm] = answers[0]
        for k in range(outcomes):
            alone = [answers[1 + place, k] for place in given]
            if alone and net.config.dominance:
                links[row, arm, k] += max(alone, key=abs)
            else:
                links[row, arm, k] += sum(alone)
        if len(given) < 2:
            continue
        h, masks = phi[row], net.config.masks
        if not masks:
            h = h + sum(w["effect.treatments"][place] for place in given)
        for layer in range(net.config.effect_layers):
            at = f"effect.layers.{layer}."
            mask = 1.0 + sum(w[at + "masks"][place] for place in given) if masks else 1.0
            h = (np.maximum(h, 0) if layer else h) @ (w[at + "weight"] * mask) + w[at + "bias"]
        links[row, arm] += h
    return links


@pytest.mark.parametrize("shape", [SHAPE, LISTED])
@pytest.mark.parametrize(
    "settings", [{}, {"effect_layers": 3}, {"masks": False}, {"dominance": False}]
)
def test_the_decomposition_written_out_for_all_arms_and_for_the_one_given(shape, settings):
    net, batch = xtnet(shape, **settings), rows_of(shape)
    with torch.no_grad():
        phi = net.representation(batch.x_num, batch.x_cat)
        links, factual = net.links(batch.x_num, batch.x_cat), net.factual(batch)
    expected = slow_links(net, shape, phi.double().numpy())
    np.testing.assert_allclose(links, expected, rtol=1e-4, atol=1e-5)
    given = expected[np.arange(len(batch)), batch.arm]
    np.testing.assert_allclose(factual, given, rtol=1e-4, atol=1e-5)


def test_a_mask_is_linear_in_the_treatments_and_none_at_control():
    torch.manual_seed(0)
    layer, h = MaskedLinear(3, 4, 5), torch.randn(7, 4)
    t = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]])
    with torch.no_grad():
        plain, one, other, both = layer.of_arms(h, t)
    torch.testing.assert_close(plain, h @ layer.weight + layer.bias)
    torch.testing.assert_close(both - plain, (one - plain) + (other - plain))
    for arm, answer in enumerate((plain, one, other, both)):
        with torch.no_grad():
            torch.testing.assert_close(layer.of_rows(h, t[arm].expand(7, -1)), answer)


@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("dominance", [True, False])
def test_the_parts_add_up_and_single_treatments_have_no_cross_effect(loss, dominance):
    shape = Shape(3, (4,), LEVELS, ("binary", "binary"))
    net, batch = xtnet(shape, loss=loss, dominance=dominance), rows_of()
    with torch.no_grad():
        outcomes = net.potential_outcomes(batch.x_num, batch.x_cat)
        parts = net.parts(batch.x_num, batch.x_cat)
    torch.testing.assert_close(parts["natural"], outcomes[:, 0])
    treated = parts["natural"][:, None] + parts["basic"] + parts["cross"]
    torch.testing.assert_close(treated, outcomes[:, 1:])
    assert float(parts["cross"][:, :3].abs().max()) == 0, "arms 1 to 3 have one treatment each"
    assert float(parts["cross"][:, 3:].abs().max()) > 0


def test_the_dominant_treatment_is_the_larger_one_of_each_unit():
    net, batch = xtnet(), rows_of()
    with torch.no_grad():
        parts, (_, basic, _) = (
            net.parts(batch.x_num, batch.x_cat),
            net.terms(net.representation(batch.x_num, batch.x_cat)),
        )
    first, second, both = basic[:, 1], basic[:, 3], basic[:, 4]
    larger = torch.where(first.abs() >= second.abs(), first, second)
    torch.testing.assert_close(both, larger)
    assert torch.equal(parts["dominant"][:, 3], (first.abs() < second.abs()).long())
    assert set(parts["dominant"][:, 3].unique().tolist()) == {0, 1}, "it depends on the unit"
    assert (parts["dominant"][:, 0] == 0).all()
    assert (parts["dominant"][:, 2] == 1).all()


def test_the_loss_counts_isolated_rows_again_and_adds_each_factors_imbalance():
    net, batch = xtnet(isolated=0.5, imbalance=0.3), rows_of()
    with torch.no_grad():
        terms, phi = net(batch), net.representation(batch.x_num, batch.x_cat)
    errors = (
        slow_links(net, SHAPE, phi.double().numpy())[np.arange(40), batch.arm] - batch.y.numpy()
    )
    row_loss = (errors**2).sum(1) * batch.weight.numpy()
    isolated = np.isin(batch.arm, [1, 2, 3])
    assert float(terms["factual"]) == pytest.approx(row_loss.mean(), rel=1e-4)
    assert float(terms["isolated"]) == pytest.approx(row_loss[isolated].sum() / 40, rel=1e-4)
    levels = np.array(LEVELS)[batch.arm]
    apart = [
        imbalance("wasserstein", phi, torch.tensor(levels[:, c]), batch.weight, 3 - c, 256)
        for c in range(2)
    ]
    assert float(terms["imbalance"]) == pytest.approx(float(sum(apart)) / 2, rel=1e-4)
    total = terms["factual"] + 0.5 * terms["isolated"] + 0.3 * terms["imbalance"]
    torch.testing.assert_close(terms["loss"], total)


def test_isolated_rows_train_no_part_of_the_effect_net():
    net, batch = xtnet(balance=False), rows_of()
    lone = batch.select((batch.arm <= 3).nonzero().squeeze(1))
    net(lone)["loss"].backward()
    assert all(float(p.grad.abs().max()) == 0 for p in net.effect.parameters())
    assert all(float(p.grad.abs().max()) > 0 for p in net.basic.parameters())


def test_each_ablation_takes_away_what_it_names():
    batch = rows_of()
    names = {name for name, _ in xtnet().named_parameters()}
    plain = {name for name, _ in xtnet(masks=False).named_parameters()}
    assert names - plain == {f"effect.layers.{i}.masks" for i in (0, 1)}
    assert plain - names == {"effect.treatments"}
    assert "imbalance" in xtnet()(batch)
    assert "imbalance" not in xtnet(balance=False)(batch)
    assert not torch.allclose(
        xtnet().links(batch.x_num, batch.x_cat),
        xtnet(dominance=False).links(batch.x_num, batch.x_cat),
    )


def test_one_factor_has_basic_effects_only():
    shape = Shape(3, (4,), ((0,), (1,), (2,)), ("continuous", "continuous"))
    net, batch = xtnet(shape), rows_of(shape)
    assert net.effect is None
    with torch.no_grad():
        parts, terms = net.parts(batch.x_num, batch.x_cat), net(batch)
    assert float(parts["cross"].abs().max()) == 0
    torch.testing.assert_close(terms["loss"], terms["factual"] + 0.01 * terms["imbalance"])


def test_hundreds_of_arms_are_few_parameters_and_answered_alike_in_blocks(monkeypatch):
    arms = tuple(itertools.product(range(3), repeat=5))
    net = xtnet(Shape(3, (4,), arms, ("continuous", "continuous")))
    batch = rows_of(Shape(3, (4,), arms, ("continuous", "continuous")))
    assert len(arms) == 243
    masks = [layer.masks.shape[0] for layer in net.effect.layers]
    assert masks == [10, 10], "one a level, not one an arm"
    with torch.no_grad():
        links, factual = net.links(batch.x_num, batch.x_cat), net.factual(batch)
    torch.testing.assert_close(links[torch.arange(40), batch.arm], factual, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("models.nets.xtnet.LARGEST", 40 * 4 * 7)  # seven arms a block
    with torch.no_grad():
        torch.testing.assert_close(net.links(batch.x_num, batch.x_cat), links)
    net(batch)["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_basic_and_cross_effects_are_found():
    """Two treatments that work alone and spoil each other for half the units."""
    from models.training import InMemoryBatches, TrainConfig, fit

    rng = np.random.default_rng(0)
    shape = Shape(2, (), ((0, 0), (1, 0), (0, 1), (1, 1)), ("continuous",))
    x, arm = rng.normal(size=(4000, 2)), rng.integers(0, 4, 4000)
    basic = np.stack(
        [np.zeros(4000), np.full(4000, 1.0), np.full(4000, 0.4), np.full(4000, 1.0)], 1
    )
    cross = np.where(x[:, 0] > 0, -0.8, 0.4)
    truth = basic + np.eye(4)[3] * cross[:, None]
    y = (x[:, 1] + truth[np.arange(4000), arm] + 0.3 * rng.normal(size=4000))[:, None]
    rows = Batch.of(x, np.zeros((4000, 0)), arm, y)
    torch.manual_seed(0)
    net = XTNet(shape, XTNetConfig(width=32, hidden=32, balance_rows=64))
    config = TrainConfig(epochs=8, learning_rate=1e-2, batch_size=256)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, config)
    with torch.no_grad():
        parts = {name: part.numpy() for name, part in net.parts(rows.x_num, rows.x_cat).items()}
    assert np.abs(parts["basic"][:, :, 0] - basic[:, 1:]).mean() < 0.12
    assert np.abs(parts["cross"][:, 2, 0] - cross).mean() < 0.25, "its mean size is 0.6"
    assert (parts["dominant"][:, 2] == 0).mean() > 0.95
