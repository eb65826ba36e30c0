"""APEM against its paper: patterns, selectors and losses written out slowly; linear in the fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from campaigns.errors import CampaignError
from models.catalog import build
from models.data import Batch, Shape
from models.patterns import Selector, advance, smooth_step

torch.set_num_threads(1)
KINDS = ("binary", "continuous", "binary", "binary")
SHAPE = Shape(2, (3, 4), ((0, 0), (1, 0), (0, 1), (2, 1)), KINDS, (0, 2, 3))
SMALL = {"width": 6, "points": 3, "layers": 2, "heads": 2, "hidden": 5, "sharpen_steps": 40}


def rows_of(rows: int = 5, shape: Shape = SHAPE) -> Batch:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (rows, 4)).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    ids = [rng.integers(0, size, rows) for size in shape.categories]
    x_cat = np.stack(ids, 1) if ids else np.zeros((rows, 0))
    weight = rng.uniform(0.5, 1.5, rows)
    x_num = rng.normal(size=(rows, shape.numeric))
    return Batch.of(
        x_num, x_cat, np.arange(rows) % shape.arms, y[:, : shape.outcome_count], None, weight
    )


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def slow_step(z: float, gamma: float) -> float:
    """Eq. 13 as printed."""
    if z <= -gamma / 2:
        return 0.0
    if z >= gamma / 2:
        return 1.0
    return -2 / gamma**3 * z**3 + 3 / (2 * gamma) * z + 0.5


def slow_attention(w: dict, at: str, queries: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Eq. 15-16, a head and a query at a time."""
    key, value = np.split(w[at + "read.weight"], 2)
    out, size = np.zeros_like(queries), queries.shape[1] // 2
    for row, query in enumerate(queries):
        heads = []
        for part in (slice(0, size), slice(size, 2 * size)):
            scores = tokens @ key[part].T @ query[part] / np.sqrt(size)
            heads.append(softmax(scores) @ (tokens @ value[part].T))
        out[row] = w[at + "out.weight"] @ np.concatenate(heads)
    return out


def slow_norm(w: dict, at: str, x: np.ndarray) -> np.ndarray:
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normed * w[at + "weight"] + w[at + "bias"]


def slow(net, numbers: np.ndarray, ids: np.ndarray, arm: int, gamma: float) -> list[float]:
    """One row under one arm: the links of its outcomes."""
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    fields = [v * w["tokens.weight"][f] + w["tokens.bias"][f] for f, v in enumerate(numbers)]
    fields += [w["tokens.embedding.table.weight"][[0, 3][f] + i] for f, i in enumerate(ids)]
    treatment, first = w["treatment"].copy(), 0
    for factor, level in enumerate(SHAPE.levels[arm]):
        if level:
            treatment += w["arms.table"][first + level - 1]
        first += SHAPE.factor_levels[factor] - 1
    patterns, found = np.stack([*fields, treatment]), None
    for layer in range(2):
        at = f"layers.{layer}."
        hidden = w[at + "selector.network.0.weight"] @ patterns.ravel()
        hidden = np.maximum(hidden + w[at + "selector.network.0.bias"], 0)
        z = w[at + "selector.network.2.weight"] @ hidden + w[at + "selector.network.2.bias"]
        z = np.array([slow_step(each, gamma) for each in z])
        points = w[at + "points"] * z[:, None]  # eq. 14
        residual = points if layer == 0 else patterns
        read = slow_attention(w, at + "attention.", points, patterns)
        patterns = slow_norm(w, at + "norm.", residual + read)  # eq. 17
        at = f"selectors.{layer}."
        asked = slow_attention(w, at + "attention.", w[at + "indicator"], patterns)  # eq. 18
        found = slow_norm(w, f"norms.{layer}.", asked if found is None else found + asked)  # eq. 19
    links = []
    for task in range(4):
        hidden = found[task] @ w["towers.0.weight"][task] + w["towers.0.bias"][task, 0]
        links.append(np.maximum(hidden, 0) @ w["towers.2.weight"][task, :, 0])
        links[-1] += w["towers.2.bias"][task, 0, 0]
    return links


@pytest.mark.parametrize("steps", [0, 30, 39])
def test_the_equations_written_out(steps):
    net, rows = build("apem", SHAPE, SMALL, seed=1), rows_of()
    for _ in range(steps):
        advance(net)
    gamma = 10 - (10 - 1e-3) * steps / 40
    expected = np.zeros((5, 4, 4))
    for row, (numbers, ids) in enumerate(zip(rows.x_num.double().numpy(), rows.x_cat.numpy())):
        for arm in range(4):
            expected[row, arm] = slow(net, numbers, ids, arm, gamma)
    with torch.no_grad():
        every = net.links(rows.x_num, rows.x_cat)
        np.testing.assert_allclose(every, expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(net.factual(rows), every[torch.arange(5), rows.arm])


@pytest.mark.parametrize("gamma", [10.0, 0.7, 1e-3])
def test_the_smooth_step_is_equation_13(gamma):
    z = torch.linspace(-0.8 * gamma, 0.8 * gamma, 41, dtype=torch.float64, requires_grad=True)
    made = smooth_step(z, gamma)
    expected = [slow_step(each, gamma) for each in z.tolist()]
    np.testing.assert_allclose(made.detach(), expected, atol=1e-9)
    made.sum().backward()
    outside = z.detach().abs() > gamma / 2
    assert (z.grad[outside] == 0).all()
    assert (z.grad[~outside] >= 0).all()


def test_selection_sharpens_by_the_steps_of_training_and_is_saved():
    net, rows = build("apem", SHAPE, SMALL, seed=1), rows_of()
    selector = next(m for m in net.modules() if isinstance(m, Selector))
    assert float(selector.gamma()) == 10.0
    net(rows)
    net.eval()(rows)
    net.potential_outcomes(rows.x_num, rows.x_cat)
    assert int(net.state_dict()["layers.0.selector.step"]) == 1, "training's loss alone counts"
    net.train()
    for _ in range(60):
        net(rows)
    assert float(selector.gamma()) == pytest.approx(1e-3, rel=1e-2)
    chosen = selector(torch.randn(50, 5, 6))
    assert ((chosen == 0) | (chosen == 1)).float().mean() > 0.95


def test_the_dependence_loss_is_equation_21():
    net, rows = build("apem", SHAPE, {**SMALL, "dependence": 0.7}, seed=1), rows_of(20)
    net.start_from([0.5, 0.0, 0.3, 0.1])
    with torch.no_grad():
        links, terms = net.eval().factual(rows) + net.start, net(rows)
        plain = net.outcome_loss(net.factual(rows), rows).mean(0).sum()
    chances, expected = links.sigmoid().double().numpy(), 0.0
    for row in range(20):
        for before, step in ((0, 2), (2, 3)):
            if rows.y_mask[row, before] and rows.y_mask[row, step]:
                label = float(rows.y[row, before] - rows.y[row, step])
                error = chances[row, before] - chances[row, step] - label
                expected += float(rows.weight[row]) * error**2 / 20
    assert float(terms["dependence"]) == pytest.approx(expected, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(float(plain) + 0.7 * expected, rel=1e-4)


def test_without_a_chain_it_is_a_plain_multi_task_net():
    shape = Shape(2, (3, 4), SHAPE.levels, KINDS)
    assert set(build("apem", shape, SMALL)(rows_of())) == {"loss"}


ABLATIONS = [{"generator": False}, {"selector": False}, {"indicators": False}, {"dependence": 0.0}]


def test_each_ablation_takes_away_what_it_names():
    whole = build("apem", SHAPE, SMALL)
    names = set(whole.state_dict())
    for config, gone in zip(ABLATIONS, ("points", "selector.", "indicator", "")):
        net = build("apem", SHAPE, {**SMALL, **config})
        assert not gone or not any(gone in name for name in net.state_dict())
        assert set(net.state_dict()) - names <= {f"layers.{n}.query.weight" for n in (0, 1)}
    assert "dependence" not in net(rows_of())


@pytest.mark.parametrize("config", ABLATIONS)
def test_each_ablation_is_another_function_that_learns(config):
    rows = rows_of(40)
    net, whole = (build("apem", SHAPE, {**SMALL, **c}, seed=1) for c in (config, {}))
    if config != {"dependence": 0.0}:  # the same net, another loss
        assert not torch.allclose(net.factual(rows), whole.factual(rows))
    first = net(rows)["loss"]
    first.backward()
    assert all(p.grad is not None for p in net.parameters())
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        net(rows)["loss"].backward()
        optimizer.step()
    assert net(rows)["loss"].item() < 0.9 * first.item()


def flops(features: int, **config: object) -> int:
    shape = Shape(features, (), ((0,), (1,)), ("binary", "binary"))
    net = build("apem", shape, {"width": 8, **config}, seed=0)
    rows = rows_of(3, shape)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # plain matmuls, which are counted
        net(rows)["loss"].backward()
    return counter.get_total_flops()


def test_twice_the_fields_cost_at_most_twice():
    assert flops(200) <= 2 * flops(100)
    assert flops(400) <= 2 * flops(200)
    quadratic = {"generator": False}
    assert flops(400, **quadratic) > 3 * flops(200, **quadratic), "what the points save"


def test_heads_must_split_the_width():
    with pytest.raises(CampaignError, match="3 heads can't split a width of 16"):
        build("apem", SHAPE, {"heads": 3})
