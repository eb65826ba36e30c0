"""EFIN against its paper: its four modules written out slowly, its ablations, its constraint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from campaigns.errors import CampaignError
from models.catalog import build
from models.data import Batch, Shape
from models.nets import efin
from models.training import InMemoryBatches, TrainConfig, fit

torch.set_num_threads(1)
ONE_FACTOR = Shape(2, (3,), ((0,), (1,), (2,)), ("binary", "continuous"))
TWO_FACTORS = Shape(2, (3,), ((0, 0), (1, 0), (0, 1), (1, 1)), ("binary", "continuous"))
SMALL = {"members": 1, "width": 4, "hidden": 5}


def features(rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, 2, generator=generator), torch.arange(rows)[:, None] % 3


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


def slow_mlp(w: dict[str, np.ndarray], at: str, x: np.ndarray, layers: int) -> np.ndarray:
    for layer in range(layers):
        x = np.maximum(w[f"{at}.{2 * layer}.weight"] @ x + w[f"{at}.{2 * layer}.bias"], 0)
    return w[f"{at}.{2 * layers}.weight"] @ x + w[f"{at}.{2 * layers}.bias"]


def slow_natural(
    w: dict[str, np.ndarray], tokens: np.ndarray, heads: int
) -> tuple[np.ndarray, np.ndarray]:
    """y(0), for each head, token and other token, then the MLP; and the attention [heads, T, T]."""
    count, width = tokens.shape
    size, found = width // heads, np.zeros_like(tokens)
    attention = np.zeros((heads, count, count))
    projected = tokens @ w["self_interaction.project.weight"].T + w["self_interaction.project.bias"]
    query, key, value = np.split(projected, 3, axis=1)
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        for token in range(count):
            scores = [query[token, at] @ key[other, at] / np.sqrt(size) for other in range(count)]
            attention[head, token] = softmax(np.array(scores))
            found[token, at] = attention[head, token] @ value[:, at]
    return slow_mlp(w, "natural", (tokens + found).ravel(), 2), attention


def slow_effect(
    w: dict[str, np.ndarray], tokens: np.ndarray, treatment: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The uplift of one treatment for one unit, what it looked at and e^xt."""
    scores = []
    for token in tokens:
        seen = w["interaction.look.weight"] @ token + w["interaction.look.bias"]
        asked = w["interaction.ask.weight"] @ treatment
        scores.append(w["interaction.score.weight"][0] @ np.maximum(asked + seen, 0))
    alpha = softmax(np.array(scores))
    found = alpha @ tokens
    hidden = w["read_features.weight"] @ found + w["read_features.bias"]
    hidden = np.maximum(hidden + w["read_arm.weight"] @ treatment, 0)
    return slow_mlp(w, "uplift", hidden, 1), alpha, found


def weights(net: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("shape", [ONE_FACTOR, TWO_FACTORS])
@pytest.mark.parametrize("heads", [1, 2])
def test_the_modules_written_out(shape, heads):
    net = build("efin", shape, {**SMALL, "heads": heads}, seed=1)
    w, (x_num, x_cat) = weights(net), features()
    with torch.no_grad():
        links, parts = net.links(x_num, x_cat), net.parts(x_num, x_cat)
        self_attention = net.self_attention(x_num, x_cat)
    for row in range(5):
        x = x_num[row].double().numpy()
        tokens = x[:, None] * w["tokens.weight"] + w["tokens.bias"]
        tokens = np.vstack([tokens, w["tokens.embedding.table.weight"][int(x_cat[row, 0])]])
        natural, looked = slow_natural(w, tokens, heads)
        np.testing.assert_allclose(self_attention[row], looked, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(links[row, 0], natural, rtol=1e-4, atol=1e-5)
        for arm in range(1, shape.arms):
            treatment, first = np.zeros(4), 0
            for factor, level in enumerate(shape.levels[arm]):
                if level:
                    treatment += w["arms.table"][first + level - 1]
                first += shape.factor_levels[factor] - 1
            effect, alpha, _ = slow_effect(w, tokens, treatment)
            np.testing.assert_allclose(links[row, arm], natural + effect, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(parts["attention"][row, arm - 1], alpha, rtol=1e-4)


@pytest.mark.parametrize("constraint", ["flipped", "reversal", "none"])
def test_the_loss_adds_the_constraint_on_the_reversed_label(constraint):
    config = {**SMALL, "constraint": constraint, "constraint_weight": 0.3}
    net = build("efin", ONE_FACTOR, config, seed=1)
    x_num, x_cat = features(6)
    rng = np.random.default_rng(0)
    arm, weight = np.array([0, 1, 2, 0, 1, 2]), rng.uniform(0.5, 1.5, 6)
    y = rng.normal(size=(6, 2))
    with torch.no_grad():
        terms = net(Batch.of(x_num.numpy(), x_cat.numpy(), arm, y, None, weight))
        tokens = net.tokens(x_num, x_cat).double().numpy()
    response = float(terms["control"] + terms["treated"])
    if constraint == "none":
        assert float(terms["loss"]) == pytest.approx(response, rel=1e-5)
        return
    w, told = weights(net), 0.0
    for row in range(6):
        _, _, found = slow_effect(w, tokens[row], w["arms.table"].mean(axis=0))
        logit = (w["group.weight"] @ found + w["group.bias"])[0]
        treated = float(arm[row] > 0)
        label = 1 - treated if constraint == "flipped" else treated
        told += weight[row] * (np.logaddexp(0, logit) - label * logit) / 6
    assert float(terms["constraint"]) == pytest.approx(told, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(response + 0.3 * told, rel=1e-4)


def test_reversal_reverses_the_gradient_of_the_features_alone():
    """Head and features pull the same way where labels are flipped, opposite ways in reversal."""
    grads = {}
    for constraint in ("flipped", "reversal"):
        net = build("efin", ONE_FACTOR, {**SMALL, "constraint": constraint}, seed=1)
        torch.nn.init.zeros_(net.group.bias)
        tokens = net.tokens(*features(8))
        arm = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
        net.tell_groups(net.group, tokens, arm).mean().backward()
        grads[constraint] = (net.group.weight.grad, net.interaction.look.weight.grad)
    # flipping the label and the head's sign is the same loss: its gradient there is mirrored
    net = build("efin", ONE_FACTOR, {**SMALL, "constraint": "flipped"}, seed=1)
    torch.nn.init.zeros_(net.group.bias)
    with torch.no_grad():
        net.group.weight.neg_()
    net.tell_groups(net.group, net.tokens(*features(8)), arm).mean().backward()
    torch.testing.assert_close(grads["reversal"][0], -net.group.weight.grad)
    torch.testing.assert_close(grads["reversal"][1], -net.interaction.look.weight.grad)


def test_all_rows_ask_the_constraint_the_same_question():
    """e^xt of the constraint doesn't depend on a row's arm: its label can't leak into it."""
    net = build("efin", ONE_FACTOR, SMALL, seed=1)
    tokens = net.tokens(*features())
    mean = net.arms()[1:].mean(0, keepdim=True)
    torch.testing.assert_close(net.representation(tokens), net.sum(mean, tokens)[:, 0])
    single = build("efin", Shape(2, (3,), ((0,), (1,)), ("binary",)), SMALL, seed=1)
    tokens = single.tokens(*features())
    own = single.sum(single.arms()[1:], tokens)[:, 0]
    torch.testing.assert_close(single.representation(tokens), own)


@pytest.mark.parametrize(
    ("config", "gone"),
    [
        ({"self_interaction": False}, {"self_interaction"}),
        ({"treatment_aware": False}, {"interaction"}),
        ({"constraint": "none"}, {"group"}),
    ],
)
def test_each_ablation_takes_away_what_it_names(config, gone):
    whole, rest = (
        set(build("efin", ONE_FACTOR, {**SMALL, **c}).state_dict()) for c in ({}, config)
    )
    assert {name.partition(".")[0] for name in whole - rest} == gone
    net = build("efin", ONE_FACTOR, {**SMALL, **config}, seed=1)
    x_num, x_cat = features(30)
    y = np.random.default_rng(0).normal(size=(30, 2))
    net(Batch.of(x_num.numpy(), x_cat.numpy(), np.arange(30) % 3, y))["loss"].backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_without_its_own_attention_a_treatment_looks_at_all_features_alike():
    net = build("efin", ONE_FACTOR, {**SMALL, "treatment_aware": False}, seed=1)
    torch.testing.assert_close(net.attention(*features()), torch.full((5, 2, 3), 1 / 3))


def test_without_self_interaction_a_feature_takes_from_itself_alone():
    net = build("efin", ONE_FACTOR, {**SMALL, "self_interaction": False}, seed=1)
    looked = net.self_attention(*features())
    torch.testing.assert_close(looked, torch.eye(3).expand(5, 1, 3, 3))
    tokens = net.tokens(*features())
    torch.testing.assert_close(net.respond_naturally(tokens), net.natural(tokens.flatten(1)))


def test_arms_that_memory_should_not_hold_at_once_are_answered_in_blocks(monkeypatch):
    shape = Shape(2, (3,), tuple((level,) for level in range(8)), ("binary",))
    net, (x_num, x_cat) = build("efin", shape, SMALL, seed=1), features()
    with torch.no_grad():
        at_once = net.parts(x_num, x_cat)
        monkeypatch.setattr(efin, "LARGEST", 3 * 5 * 3 * 4)  # three arms
        assert [len(block) for block in net.blocks(net.tokens(x_num, x_cat))] == [3, 3, 1]
        for name, part in net.parts(x_num, x_cat).items():
            torch.testing.assert_close(part, at_once[name])


def test_the_residual_is_the_tokens():
    net, plain = (
        build("efin", ONE_FACTOR, {**SMALL, "residual": r}, seed=1) for r in (True, False)
    )
    tokens = net.tokens(*features())
    found = plain.self_interaction(tokens)
    torch.testing.assert_close(net.self_interaction(tokens), tokens + found)


def test_heads_must_divide_the_width():
    with pytest.raises(CampaignError, match="heads: 3 don't divide a width of 16"):
        build("efin", ONE_FACTOR, {"heads": 3})


def test_a_treatment_comes_to_look_at_what_moves_its_effect():
    """Arm 1 works where x0 is high, arm 2 where x3 is: each pays its own feature more attention."""
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(6000, 6)), rng.integers(0, 3, 6000)
    effects = np.stack([np.zeros(6000), 2 * (x[:, 0] > 0), 2 * (x[:, 3] > 0)], axis=1)
    y = effects[np.arange(6000), arm][:, None] + 0.3 * rng.normal(size=(6000, 1))
    rows = Batch.of(x, np.zeros((6000, 0)), arm, y)
    net = build("efin", Shape(6, (), ((0,), (1,), (2,)), ("continuous",)), {"members": 1}, seed=0)
    config = TrainConfig(epochs=6, learning_rate=5e-3)
    fit(net, InMemoryBatches(rows, 256), lambda net: {"loss": float(net(rows)["loss"])}, config)
    with torch.no_grad():
        attention = net.attention(rows.x_num, rows.x_cat).mean(0)
    assert attention[0].argmax() == 0
    assert attention[1].argmax() == 3


def test_reversal_makes_the_groups_alike_and_flipping_does_not():
    """Features decide who is treated: how well does a linear probe of e^xt tell the groups apart?"""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    arm = (rng.random(600) < 1 / (1 + np.exp(-1.5 * x[:, 1]))).astype(int)
    y = x[:, :1] * arm[:, None] + x[:, 1:2] + 0.3 * rng.normal(size=(600, 1))
    rows = Batch.of(x, np.zeros((600, 0)), arm, y)
    told = {}
    for constraint in ("flipped", "reversal"):
        config = {"members": 1, "constraint": constraint, "constraint_weight": 1.0}
        net = build("efin", Shape(3, (), ((0,), (1,)), ("continuous",)), config, seed=0)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            net(rows)["loss"].backward()
            optimizer.step()
        with torch.no_grad():
            found = net.representation(net.tokens(rows.x_num, rows.x_cat)).numpy()
        probe = LogisticRegression().fit(found, arm)
        told[constraint] = roc_auc_score(arm, probe.decision_function(found))
    assert told["flipped"] > 0.7
    assert told["reversal"] < 0.65
