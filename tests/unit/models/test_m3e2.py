"""M3E2 against its paper: the network and equation 2 written out, additivity, hidden confounders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape
from models.nets.m3e2 import M3E2Config, M3E2Core

torch.set_num_threads(1)
SHAPE = Shape(3, (4,), ((0, 0), (1, 0), (0, 1), (2, 1)), ("binary", "continuous"))
SMALL = {"embedding": 2, "latent": 2, "hidden": 5, "width": 4, "experts": 3}


def make_batch(rows: int = 6, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    y = np.column_stack([rng.integers(0, 2, rows), rng.normal(size=rows)]).astype(float)
    y[0, 1] = np.nan
    x_cat = rng.integers(0, 4, (rows, 1))
    weight = rng.uniform(0.5, 1.5, rows)
    return Batch.of(
        rng.normal(size=(rows, 3)), x_cat, np.arange(rows) % 4, y, np.full(rows, 0.25), weight
    )


def weights(net: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in net.state_dict().items()}


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def slow(net, x_num: np.ndarray, x_cat: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sections 3.1-3.3 for a row at a time: H [B, L, w], X2 and its reconstruction [B, F]."""
    w, config = weights(net), net.core.config
    h, proxies, rebuilt = [], [], []
    for numbers, (level,) in zip(x_num, x_cat):
        x = np.concatenate([numbers, w["features.embedding.table.weight"][level]])
        code = x
        for layer in (0, 1):
            at = f"core.autoencoder.encode.{layer}."
            code = w[at + "weight"] @ code + w[at + "bias"]
        back = code
        for layer in (0, 1):
            at = f"core.autoencoder.decode.{layer}."
            back = w[at + "weight"] @ back + w[at + "bias"]
        into = np.concatenate([code, x])
        experts = [
            relu(into @ w["core.experts.0.weight"][e] + w["core.experts.0.bias"][e, 0])
            @ w["core.experts.2.weight"][e]
            + w["core.experts.2.bias"][e, 0]
            for e in range(config.experts)
        ]
        row = []
        for treatment in range(3):
            scores = (w["core.gate.weight"] @ into).reshape(3, config.experts)[treatment]
            gate = np.exp(scores) / np.exp(scores).sum()
            mixed = sum(g * expert for g, expert in zip(gate, experts))
            row.append(
                relu(mixed @ w["core.heads.weight"][treatment] + w["core.heads.bias"][treatment, 0])
            )
        h.append(row)
        proxies.append(x)
        rebuilt.append(back)
    return np.array(h), np.array(proxies), np.array(rebuilt)


INCIDENCE = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1]])  # levels 1, 2 of one; 1 of two


@pytest.mark.parametrize("heterogeneous", [True, False])
def test_the_answer_is_sections_3_1_to_3_3_written_out(heterogeneous):
    net = build("m3e2", SHAPE, {**SMALL, "heterogeneous": heterogeneous}, seed=1)
    torch.nn.init.normal_(net.core.tau)
    batch = make_batch()
    h, _, _ = slow(net, batch.x_num.double().numpy(), batch.x_cat.numpy())
    w = weights(net)
    mean = h.mean(axis=1)
    expected = np.zeros((6, 4, 2))
    for arm, given in enumerate(INCIDENCE):
        for k in range(2):
            expected[:, arm, k] = mean @ w["core.outcome.weight"][k] + w["core.outcome.bias"][k]
            for level in np.flatnonzero(given):
                expected[:, arm, k] += w["core.tau"][level, k]
                if heterogeneous:
                    expected[:, arm, k] += mean @ w["core.modifier"][level, :, k]
    with torch.no_grad():
        np.testing.assert_allclose(net.links(batch.x_num, batch.x_cat), expected, atol=1e-5)


def test_the_loss_is_equation_2():
    config = {**SMALL, "alpha": 2.0, "beta": 0.3, "gamma": 0.7, "decay": 5.0}
    net = build("m3e2", SHAPE, config, seed=1)
    batch = make_batch()
    h, x2, rebuilt = slow(net, batch.x_num.double().numpy(), batch.x_cat.numpy())
    w = weights(net)
    with torch.no_grad():
        links = net.factual(batch).double().numpy()
        terms = {name: float(term) for name, term in net(batch).items()}
    row, given = batch.weight.double().numpy(), INCIDENCE[batch.arm.numpy()]
    y, p = batch.y.double().numpy(), 1 / (1 + np.exp(-links[:, 0]))
    entropy = -(y[:, 0] * np.log(p) + (1 - y[:, 0]) * np.log(1 - p))
    squared = (y[:, 1] - links[:, 1]) ** 2 * batch.y_mask.numpy()[:, 1]
    outcome = (row * (entropy + squared)).mean()
    logits = (h * w["core.propensity.weight"]).sum(-1) + w["core.propensity.bias"]
    p = 1 / (1 + np.exp(-logits))
    propensity = -(given * np.log(p) + (1 - given) * np.log(1 - p)).sum(1)
    propensity = (row * propensity).mean()
    autoencoder = (row * ((x2 - rebuilt) ** 2).mean(1)).mean()
    trained = [value.detach().double().numpy() for value in net.core.parameters()]
    size = sum(value.size for value in trained)
    decay = 5.0 / (2 * size) * sum((value**2).sum() for value in trained)
    assert terms["outcome"] == pytest.approx(outcome, rel=1e-4)
    assert terms["propensity"] == pytest.approx(propensity, rel=1e-4)
    assert terms["autoencoder"] == pytest.approx(autoencoder, rel=1e-4)
    expected = 2.0 * outcome + 0.3 * propensity + 0.7 * autoencoder + decay
    assert terms["loss"] == pytest.approx(expected, rel=1e-4)


def test_effects_add_up_over_the_levels_of_an_arm():
    both = Shape(3, (), ((0, 0), (1, 0), (0, 1), (1, 1)), ("continuous", "continuous"))
    net = build("m3e2", both, SMALL, seed=1)
    torch.nn.init.normal_(net.core.tau)
    x = torch.randn(9, 3), torch.zeros(9, 0, dtype=torch.int64)
    with torch.no_grad():
        links, effects = net.links(*x), net.effects(*x)
    uplift = links[:, 1:] - links[:, :1]
    torch.testing.assert_close(uplift[:, 2], uplift[:, 0] + uplift[:, 1])
    torch.testing.assert_close(effects, uplift[:, :2].mean(0))


def test_a_dose_is_one_treatment_with_a_linear_effect_and_a_normal_head():
    levels = ((0, 0), (1, 0), (2, 0), (2, 1))
    shape = Shape(3, (4,), levels, SHAPE.outcomes, doses=((0.0, 0.3, 1.0), ()))
    net = build("m3e2", shape, SMALL, seed=1)
    torch.nn.init.normal_(net.core.tau)
    assert net.core.continuous.tolist() == [True, False]
    batch = replace(make_batch(4), dose=torch.tensor([[0.1, -1], [-1, -1], [0.9, -1], [-1, -1]]))
    h, _ = net.core.represent(*net.split(batch.x_num, batch.x_cat))
    with torch.no_grad():
        links = net.links(batch.x_num, batch.x_cat)
        guess = net.core.propensity(h)
        told = net(batch)["propensity"]
    uplift = links[:, 1:] - links[:, :1]
    torch.testing.assert_close(uplift[:, 0], 0.3 * uplift[:, 1])
    given = torch.tensor([[0.1, 0], [0.3, 0], [0.9, 0], [1, 1]])  # exact where it was told
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    second = entropy(guess[:, 1], given[:, 1], reduction="none")
    expected = (batch.weight * ((guess[:, 0] - given[:, 0]) ** 2 + second)).mean()
    torch.testing.assert_close(told, expected)


def test_without_heterogeneity_the_effects_are_tau_for_every_unit():
    net = build("m3e2", SHAPE, {**SMALL, "heterogeneous": False}, seed=1)
    torch.nn.init.normal_(net.core.tau)
    batch = make_batch()
    with torch.no_grad():
        links = net.links(batch.x_num, batch.x_cat)
        effects = net.effects(batch.x_num, batch.x_cat)
    torch.testing.assert_close(effects, net.core.tau.detach())
    uplift = links[:, 1:] - links[:, :1]
    torch.testing.assert_close(uplift, uplift[:1].expand_as(uplift))


@pytest.mark.parametrize(
    ("config", "direct", "proxies"),
    [
        ({}, 5, 5),
        ({"overlap": False}, 0, 5),
        ({"share": 0.0}, 5, 0),
        ({"share": 0.5}, 5, 2),
        ({"share": 0.75, "overlap": False}, 2, 3),
    ],
)
def test_features_are_split_between_experts_and_autoencoder(config, direct, proxies):
    net = build("m3e2", SHAPE, {**SMALL, **config}, seed=1)
    batch = make_batch()
    x1, x2 = net.split(batch.x_num, batch.x_cat)
    assert (x1.shape[1], x2.shape[1]) == (direct, proxies)
    assert (net.core.autoencoder is None) == (proxies == 0)
    terms = net(batch)
    terms["loss"].backward()
    assert ("autoencoder" in terms) == (proxies > 0)
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_balanced_weights_follow_the_losses_of_the_steps_before():
    core = M3E2Core(2, 0, [False], 1, M3E2Config(weights="balanced", decay=0.0)).train()
    seen = [torch.tensor([4.0, 1.0]), torch.tensor([2.0, 1.0]), torch.tensor([2.0, 3.0])]
    factors = [core.balance(losses) for losses in seen]
    torch.testing.assert_close(factors[0], torch.ones(2))
    torch.testing.assert_close(factors[1], torch.ones(2))
    running = 4.0 + 0.05 * (2.0 - 4.0)
    torch.testing.assert_close(factors[2], torch.tensor([(running / 4.0) ** 0.5, 1.0]))
    core.eval()
    torch.testing.assert_close(core.balance(seen[0]), torch.ones(2))
    assert int(core.steps) == 3, "validation counts no step"


def test_shards_add_up_to_the_whole_under_balanced_weights():
    batch = make_batch(8)
    gradients = []
    for parts in ([range(8)], [range(4), range(4, 8)]):
        total = 0.0
        for part in parts:
            net = build("m3e2", SHAPE, {**SMALL, "weights": "balanced"}, seed=1)
            net(make_batch(8, seed=5))  # the same step before on every worker
            net.zero_grad()
            net(batch.select(torch.tensor(list(part))))["loss"].backward()
            total = total + net.core.experts[0].weight.grad / len(parts)
        gradients.append(total)
    torch.testing.assert_close(gradients[0], gradients[1])


def learn(core: M3E2Core, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(core.parameters(), lr=1e-2)
    for step in range(400):
        rows = torch.arange(step * 256, step * 256 + 256) % len(x)
        h, rebuilt = core.represent(x[rows], x[rows])
        loss = (core.predict(h, t[rows]) - y[rows]).square().mean(0)
        others = core.terms(h, t[rows], x[rows], rebuilt, torch.ones(256))
        optimizer.zero_grad()
        core.total(loss, others)["loss"].backward()
        optimizer.step()


def test_effects_of_continuous_and_binary_treatments_survive_a_confounder_with_proxies():
    """U moves both treatments and the outcome; only noisy copies of it are seen."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(4096, 1))
    x = u + 0.3 * rng.normal(size=(4096, 12))
    dose = u + rng.normal(size=(4096, 1))
    given = (rng.random((4096, 1)) < 1 / (1 + np.exp(-u))).astype(float)
    y = 2.0 * dose - 1.0 * given + 3.0 * u + 0.3 * rng.normal(size=(4096, 1))
    t = np.hstack([dose, given])
    naive = np.linalg.lstsq(np.column_stack([np.ones(4096), t]), y[:, 0], rcond=None)[0][1:]
    assert np.abs(naive - [2.0, -1.0]).min() > 0.7, "without the proxies the effects are wrong"
    torch.manual_seed(0)
    core = M3E2Core(12, 12, [True, False], 1, M3E2Config(heterogeneous=False, width=16))
    learn(core, *(torch.tensor(each, dtype=torch.float32) for each in (x, t, y)))
    tau = core.tau.detach().numpy()[:, 0]
    np.testing.assert_allclose(tau, [2.0, -1.0], atol=0.2)
