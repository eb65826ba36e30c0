"""MTMT against its paper: every equation written out slowly, every ablation, every part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.catalog import build
from models.data import Batch, Shape

torch.set_num_threads(1)
ONE_FACTOR = Shape(3, (4, 2), ((0,), (1,), (2,), (3,)), ("binary", "continuous"))
TWO_FACTORS = Shape(3, (4, 2), ((0, 0), (1, 0), (0, 1), (2, 1)), ("binary", "continuous"))
SMALL = {"width": 4, "experts": 3, "hidden": 5, "enhancer_width": 6}


def features(shape: Shape, rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x_num = torch.randn(rows, shape.numeric, generator=generator)
    ids = [torch.randint(0, size, (rows,), generator=generator) for size in shape.categories]
    return x_num, torch.stack(ids, dim=1)


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


def slow_expert(w: dict[str, np.ndarray], x: np.ndarray, expert: int, blocks: int) -> np.ndarray:
    for block in range(blocks):
        at = f"encoder.experts.blocks.{block}."
        normed = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        hidden = normed @ w[at + "0.weight"][expert] + w[at + "0.bias"][expert, 0]
        x = x + np.maximum(hidden, 0) @ w[at + "2.weight"][expert] + w[at + "2.bias"][expert, 0]
    return x


def slow_effect(
    w: dict[str, np.ndarray], path: str, treatment: np.ndarray, phi: np.ndarray, task: int
) -> tuple[float, np.ndarray]:
    """Eq. 6 and 7 for one user [T, d], one treatment [d], one task: the effect, the attention."""
    query = treatment @ w[path + "query"][task]
    keys = phi @ w[path + "key"][task]
    attention = softmax(keys @ query / np.sqrt(phi.shape[1]))
    psi = attention @ (phi @ w[path + "value"][task])
    hidden = np.maximum(w[path + "enhancer.0.weight"] @ psi + w[path + "enhancer.0.bias"], 0)
    refined = w[path + "enhancer.2.weight"] @ hidden + w[path + "enhancer.2.bias"]
    bias = w[path + "bias"][0, task] if path + "bias" in w else 0.0  # centring would cancel it
    return refined @ w[path + "weight"][task, :, 0] + bias, attention


def slow_links(net, shape: Shape, x_num: np.ndarray, x_cat: np.ndarray) -> tuple[np.ndarray, ...]:
    """Links [B, A, K] and attention [B, A, K, T], by loops over rows, tasks, arms and experts."""
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    config, tasks, arms = net.config, shape.outcome_count, shape.arms
    links = np.zeros((len(x_num), arms, tasks))
    attention = np.zeros((len(x_num), arms, tasks, shape.features))
    for row, (numbers, ids) in enumerate(zip(x_num, x_cat)):
        tokens = [v * w["tokens.weight"][f] + w["tokens.bias"][f] for f, v in enumerate(numbers)]
        starts = np.cumsum([0, *shape.categories])
        tokens += [w["tokens.embedding.table.weight"][starts[f] + i] for f, i in enumerate(ids)]
        x = np.concatenate(tokens)
        experts = [slow_expert(w, x, e, config.blocks) for e in range(config.experts)]
        logits = (w["encoder.gate.weight"] @ x).reshape(tasks, config.experts)
        for task in range(tasks):
            gate = softmax(logits[task])  # eq. 3
            phi = sum(g * expert for g, expert in zip(gate, experts))  # eq. 2
            natural = w["natural.weight"][task] @ phi + w["natural.bias"][task]  # eq. 4
            phi = phi.reshape(shape.features, config.width)
            base, attention[row, 0, task] = slow_effect(
                w, "base.", w["base_treatment"][0], phi, task
            )
            increments = np.zeros(arms)
            for arm in range(1, arms):
                treatment, first = np.zeros(config.width), 0
                for factor, level in enumerate(shape.levels[arm]):  # eq. 5, a factor at a time
                    if level:
                        treatment += w["arm_treatments.table"][first + level - 1]
                    first += shape.factor_levels[factor] - 1
                increments[arm], attention[row, arm, task] = slow_effect(
                    w, "increment.", treatment, phi, task
                )
            if config.centre:
                increments[1:] -= increments[1:].mean()
            links[row, 0, task] = natural
            links[row, 1:, task] = natural + base + increments[1:]  # eq. 8
    return links, attention


@pytest.mark.parametrize("shape", [ONE_FACTOR, TWO_FACTORS])
@pytest.mark.parametrize("centre", [True, False])
def test_the_equations_written_out(shape, centre):
    net = build("mtmt", shape, {**SMALL, "blocks": 2, "centre": centre}, seed=1)
    x_num, x_cat = features(shape)
    expected, attention = slow_links(net, shape, x_num.double().numpy(), x_cat.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(net.links(x_num, x_cat), expected, rtol=1e-4, atol=1e-5)
        parts = net.parts(x_num, x_cat)
    np.testing.assert_allclose(parts["attention"], attention, rtol=1e-4, atol=1e-6)


def test_the_loss_is_equation_9():
    shape = Shape(3, (4, 2), ONE_FACTOR.levels, ("continuous", "continuous"))
    net = build("mtmt", shape, SMALL, seed=1)
    x_num, x_cat = features(shape, 6)
    rng = np.random.default_rng(0)
    arm, y = np.array([0, 1, 2, 3, 0, 1]), rng.normal(size=(6, 2))
    with torch.no_grad():
        terms = net(Batch.of(x_num.numpy(), x_cat.numpy(), arm, y))
    responses = slow_links(net, shape, x_num.double().numpy(), x_cat.numpy())[0]
    squared = ((y - responses[np.arange(6), arm]) ** 2).sum(axis=1)
    assert float(terms["control"]) == pytest.approx(squared[arm == 0].sum() / 6, rel=1e-4)
    assert float(terms["treated"]) == pytest.approx(squared[arm > 0].sum() / 6, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(squared.sum() / 6, rel=1e-4)


@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("tiered", [True, False])
@pytest.mark.parametrize("shape", [ONE_FACTOR, TWO_FACTORS])
def test_the_parts_add_up_to_the_potential_outcomes(loss, centre, tiered, shape):
    net = build("mtmt", shape, {**SMALL, "loss": loss, "centre": centre, "tiered": tiered}, seed=2)
    x_num, x_cat = features(shape)
    with torch.no_grad():
        outcomes, parts = net.potential_outcomes(x_num, x_cat), net.parts(x_num, x_cat)
    treated = parts["natural"][:, None] + parts["base"][:, None] + parts["incremental"]
    torch.testing.assert_close(parts["natural"], outcomes[:, 0])
    torch.testing.assert_close(treated, outcomes[:, 1:])
    torch.testing.assert_close(parts["attention"].sum(-1), torch.ones(5, 4, 2))
    total = parts["incremental"].sum(1)
    if centre or not tiered:
        torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)
        uplift = outcomes[:, 1:] - outcomes[:, :1]
        torch.testing.assert_close(parts["base"], uplift.mean(1))
    else:
        assert total.abs().max() > 1e-3


def test_base_without_centring_is_the_effect_of_the_base_path_alone():
    shape = Shape(3, (4, 2), ONE_FACTOR.levels, ("continuous", "continuous"))
    net = build("mtmt", shape, {**SMALL, "centre": False}, seed=2)
    x_num, x_cat = features(shape)
    with torch.no_grad():
        _, base, increments = net.tiers(net.encode(x_num, x_cat))
        parts = net.parts(x_num, x_cat)
    torch.testing.assert_close(parts["base"], base[:, 0])
    torch.testing.assert_close(parts["incremental"], increments)


def test_a_single_treatment_has_a_base_effect_only():
    net = build("mtmt", Shape(3, (4, 2), ((0,), (1,)), ("binary",)), SMALL, seed=1)
    parts = net.parts(*features(ONE_FACTOR))
    assert net.increment is None
    assert parts["incremental"].abs().max() == 0
    assert parts["attention"].shape == (5, 2, 1, 5)


def test_all_arms_share_one_pass_over_the_users(monkeypatch):
    net = build("mtmt", ONE_FACTOR, SMALL, seed=1)
    calls = []
    encode = net.encode
    monkeypatch.setattr(net, "encode", lambda *x: calls.append(1) or encode(*x))
    net.potential_outcomes(*features(ONE_FACTOR))
    assert calls == [1]


def names(config: dict[str, object]) -> set[str]:
    return set(build("mtmt", ONE_FACTOR, {**SMALL, **config}).state_dict())


def test_each_ablation_takes_away_what_it_names():
    whole = names({})
    gone = whole - names({"interaction": False})
    assert gone == {f"{p}.{w}" for p in ("base", "increment") for w in ("query", "key", "value")}
    assert all(".enhancer." in name for name in whole - names({"enhancer": False}))
    assert "encoder.gate.weight" not in names({"encoder": "resnet"})
    assert "encoder.network.0.weight" in names({"encoder": "mlp"})
    untiered = build("mtmt", ONE_FACTOR, {**SMALL, "tiered": False})
    assert untiered.increment is None
    assert untiered.base.weight.shape == (2, 4, 3), "one output an arm from the one path"
    joint = build("mtmt", ONE_FACTOR, {**SMALL, "task_wise": False})
    assert joint.base.query.shape[0] == 1
    attention = joint.parts(*features(ONE_FACTOR))["attention"]
    assert torch.equal(attention[:, :, 0], attention[:, :, 1]), "one attention for all tasks"
    assert names({"centre": False}) - whole == {"increment.bias"}


@pytest.mark.parametrize(
    "config",
    [
        {"interaction": False},
        {"enhancer": False},
        {"encoder": "mlp"},
        {"encoder": "resnet"},
        {"encoder": "ple"},
        {"encoder": "apem"},
        {"multi_task": False},
        {"tiered": False},
        {"task_wise": False},
        {"centre": False},
        {"interaction": False, "enhancer": False, "tiered": False, "task_wise": False},
    ],
)
def test_each_ablation_is_another_function_that_learns(config):
    x_num, x_cat = features(ONE_FACTOR, 40)
    net, whole = (build("mtmt", ONE_FACTOR, {**SMALL, **c}, seed=1) for c in (config, {}))
    with torch.no_grad():
        mine, theirs = (each.potential_outcomes(x_num, x_cat) for each in (net, whole))
    assert mine.shape == theirs.shape
    assert not torch.allclose(mine, theirs)
    rng = np.random.default_rng(0)
    batch = Batch.of(x_num.numpy(), x_cat.numpy(), np.arange(40) % 4, rng.normal(size=(40, 2)))
    net(batch)["loss"].backward()
    still = [n for n, p in net.named_parameters() if p.grad is None]
    assert not still
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    first = net(batch)["loss"].item()
    for _ in range(30):
        optimizer.zero_grad()
        net(batch)["loss"].backward()
        optimizer.step()
    assert net(batch)["loss"].item() < 0.9 * first


@pytest.mark.parametrize("encoder", ["ple", "apem"])
def test_other_encoders_keep_the_equations_after_them(encoder):
    """phi is another, effects are still made of it by eq. 4-8, and a row's is its own."""
    net = build("mtmt", ONE_FACTOR, {**SMALL, "encoder": encoder}, seed=1).eval()
    x_num, x_cat = features(ONE_FACTOR)
    with torch.no_grad():
        phi, outcomes = net.encode(x_num, x_cat), net.potential_outcomes(x_num, x_cat)
        alone = net.encode(x_num[2:3], x_cat[2:3])
        natural, base, increments = net.tiers(phi)
        parts = net.parts(x_num, x_cat)
    assert phi.shape == (5, 2, 5, 4), "one token a feature for each outcome"
    assert not torch.allclose(phi[:, 0], phi[:, 1]), "and not the same ones"
    torch.testing.assert_close(alone[0], phi[2])
    links = torch.cat([natural, natural + base + increments], dim=1)
    torch.testing.assert_close(net.respond(links), outcomes)
    treated = parts["natural"][:, None] + parts["base"][:, None] + parts["incremental"]
    torch.testing.assert_close(treated, outcomes[:, 1:])
    torch.testing.assert_close(parts["attention"].sum(-1), torch.ones(5, 4, 2))


def test_ple_shares_half_of_an_outcomes_experts():
    net = build("mtmt", ONE_FACTOR, {**SMALL, "encoder": "ple", "experts": 4}, seed=1)
    net.encode(*features(ONE_FACTOR))[:, 0].square().sum().backward()
    weight = net.encoder.extraction.experts.blocks[0][0].weight
    taught = weight.grad.abs().sum((1, 2)) > 0
    assert taught.tolist() == [True, True, False, False, True, True]


def test_the_apem_encoder_is_induced_attention():
    net = build("mtmt", ONE_FACTOR, {**SMALL, "encoder": "apem", "points": 3}, seed=1)
    encoder = net.encoder
    with torch.no_grad():
        x = torch.randn(4, 20)
        tokens, phi = x.view(4, 5, 4), encoder(x).unflatten(-1, (5, 4))
        patterns = encoder.generator(tokens)
        assert patterns.shape == (4, 3, 4)
        for task in range(2):
            told = encoder.attention(tokens + encoder.indicator[task], patterns)
            torch.testing.assert_close(phi[:, task], encoder.norm(tokens + told))


def test_only_a_step_of_training_sharpens_the_apem_encoder():
    net = build("mtmt", ONE_FACTOR, {**SMALL, "encoder": "apem"}, seed=1)
    x_num, x_cat = features(ONE_FACTOR)
    batch = Batch.of(x_num.numpy(), x_cat.numpy(), np.arange(5) % 4, np.zeros((5, 2)))
    net(batch)
    net.potential_outcomes(x_num, x_cat)
    net.eval()(batch)
    assert int(net.encoder.generator.selector.step) == 1


def test_the_single_task_form_is_a_net_an_outcome():
    net = build("mtmt", ONE_FACTOR, {**SMALL, "multi_task": False}, seed=1)
    x_num, x_cat = features(ONE_FACTOR)
    net.start_from([0.3, 0.0])
    outcomes, parts = net.potential_outcomes(x_num, x_cat), net.parts(x_num, x_cat)
    treated = parts["natural"][:, None] + parts["base"][:, None] + parts["incremental"]
    torch.testing.assert_close(treated, outcomes[:, 1:])
    assert parts["attention"].shape == (5, 4, 2, 5)
    for task, (kind, start) in enumerate(zip(ONE_FACTOR.outcomes, (0.3, 0.0))):
        shape = Shape(3, (4, 2), ONE_FACTOR.levels, (kind,))
        alone = build("mtmt", shape, {**SMALL, "encoder": "resnet"})
        alone.load_state_dict(net.single[task].state_dict())
        alone.start_from([start])
        expected = alone.potential_outcomes(x_num, x_cat)[..., 0]
        torch.testing.assert_close(outcomes[..., task], expected)
        attention = alone.parts(x_num, x_cat)["attention"]
        torch.testing.assert_close(parts["attention"][:, :, task], attention[:, :, 0])
    outcomes[..., 0].sum().backward()
    assert all(p.grad.abs().sum() == 0 for p in net.single[1].parameters()), "nothing is shared"


def test_the_single_task_form_takes_a_campaign_that_says_what_outcomes_are_worth():
    told = replace(ONE_FACTOR, worth=(1.0, 2.0), costs=(0.0, 0.1, 0.2, 0.3))
    net = build("mtmt", told, {**SMALL, "multi_task": False}, seed=1)
    x_num, x_cat = features(told)
    assert net.potential_outcomes(x_num, x_cat).shape == (5, 4, 2)


def test_an_arm_of_known_levels_shares_their_embeddings():
    net = build("mtmt", TWO_FACTORS, SMALL, seed=1)
    assert net.arm_treatments.table.shape == (3, 4), "levels 1 and 2 of one factor, 1 of the other"
    arms = net.arm_treatments()
    torch.testing.assert_close(arms[3] - arms[2], net.arm_treatments.table[1])


def test_a_common_effect_lands_in_the_base():
    """Two treatments that do the same: base finds the effect, the increments find nothing."""
    from models.training import InMemoryBatches, TrainConfig, fit

    rng = np.random.default_rng(0)
    shape = Shape(2, (), ((0,), (1,), (2,)), ("continuous",))
    x, arm = rng.normal(size=(4000, 2)), rng.integers(0, 3, 4000)
    y = x[:, :1] + np.where(arm > 0, 1.0, 0.0)[:, None] + 0.3 * rng.normal(size=(4000, 1))
    rows = Batch.of(x, np.zeros((4000, 0)), arm, y)
    net = build("mtmt", shape, seed=0)
    config = TrainConfig(epochs=6, learning_rate=5e-3, batch_size=256)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, config)
    with torch.no_grad():
        parts = net.parts(rows.x_num, rows.x_cat)
    assert float(parts["base"].mean()) == pytest.approx(1.0, abs=0.1)
    assert float(parts["incremental"].abs().mean()) < 0.1


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("multi_task", [True, False])
def test_training_starts_from_the_averages_and_no_effect(members, multi_task):
    config = {**SMALL, "members": members, "multi_task": multi_task}
    net = build("mtmt", TWO_FACTORS, config, seed=1)
    x_num, x_cat = features(TWO_FACTORS)
    assert net.potential_outcomes(x_num, x_cat).std() > 1e-3, "weights are drawn"
    net.start_from([0.3, 0.0])
    expected = torch.tensor([0.3, 0.0]).expand(5, 4, 2)
    torch.testing.assert_close(net.potential_outcomes(x_num, x_cat), expected)
    rows = Batch.of(x_num.numpy(), x_cat.numpy(), np.array([0, 1, 2, 3, 1]), np.ones((5, 2)))
    torch.optim.SGD(net.parameters(), lr=0.1).step(lambda: net(rows)["loss"].backward())
    uplift = net.potential_outcomes(x_num, x_cat).diff(dim=1)
    assert uplift.abs().max() > 1e-6, "and one step leads away"
