"""Stacked blocks compute what a loop over their copies would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from models.data import Batch, Shape
from models.layers import (
    MLP,
    ArmEmbedding,
    CategoryEmbedding,
    FeatureTokens,
    FeatureVector,
    Heads,
    MMoE,
    ResidualExperts,
    Stacked,
    StackedMLP,
)
from models.nets.base import Net, of_arm

torch.set_num_threads(1)
SHAPE = Shape(2, (3, 4), ((0,), (1,)), ("binary",))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_token_is_its_value_times_a_vector_plus_another():
    tokens = FeatureTokens(SHAPE, 5)
    x_num, x_cat = torch.randn(7, 2), torch.randint(0, 3, (7, 2))
    made = tokens(x_num, x_cat)
    assert made.shape == (7, 4, 5)
    torch.testing.assert_close(made[:, 1], x_num[:, 1:] * tokens.weight[1] + tokens.bias[1])
    table = tokens.embedding.table.weight
    assert torch.equal(made[:, 3], table[3 + x_cat[:, 1]]), (
        "the second column starts after the first"
    )


def test_each_category_of_each_column_has_a_row_of_its_own():
    embedding = CategoryEmbedding((3, 4), 2)
    ids = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    flat = embedding(ids).flatten(0, 1)
    assert len(torch.unique(flat, dim=0)) == 7


@pytest.mark.parametrize("shape", [Shape(2, (), ((0,), (1,)), ("binary",)), SHAPE])
def test_a_feature_vector_is_as_wide_as_it_says(shape):
    vector = FeatureVector(shape, 6)
    x_cat = torch.zeros(3, len(shape.categories), dtype=torch.int64)
    assert vector(torch.zeros(3, 2), x_cat).shape == (3, vector.width)


def test_an_arm_is_the_sum_of_its_levels():
    arms = ((0, 0), (1, 0), (2, 0), (0, 1), (2, 1))
    embedded = ArmEmbedding(arms, 4)()
    assert torch.equal(embedded[0], torch.zeros(4)), "control adds nothing"
    torch.testing.assert_close(embedded[4], embedded[2] + embedded[3])
    assert len(torch.unique(embedded, dim=0)) == 5


def test_stacked_layers_are_separate_layers():
    stack = StackedMLP(3, 4, [5], 2)
    x = torch.randn(3, 6, 4)
    made = stack(x)
    first, _, last = stack
    for g in range(3):
        hidden = torch.relu(x[g] @ first.weight[g] + first.bias[g])
        torch.testing.assert_close(made[g], hidden @ last.weight[g] + last.bias[g])
    shared = torch.randn(6, 4)
    torch.testing.assert_close(Stacked(3, 4, 2)(shared).shape, torch.Size([3, 6, 2]))
    torch.testing.assert_close(first(shared), first(shared.expand(3, 6, 4)))


def test_heads_read_their_own_row():
    heads = Heads(3, 4)
    x = torch.randn(2, 3, 4)
    expected = torch.stack([x[:, g] @ heads.weight[g] + heads.bias[g] for g in range(3)], dim=1)
    torch.testing.assert_close(heads(x), expected)


def test_mmoe_weighs_its_experts_by_each_tasks_gate():
    moe = MMoE(2, 3, width=6, hidden=4, blocks=2, dropout=0.0)
    x = torch.randn(5, 6)
    gates, experts = moe.gates(x), moe.experts(x)
    torch.testing.assert_close(gates.sum(-1), torch.ones(5, 2))
    mixed = sum(gates[:, 1, e, None] * experts[e] for e in range(3))
    torch.testing.assert_close(moe(x)[:, 1], mixed)


def test_an_expert_starts_from_its_input():
    experts = ResidualExperts(2, 6, 4, 2, 0.0)
    with torch.no_grad():
        for block in experts.blocks:
            for parameter in block[-1].parameters():
                parameter.zero_()
    x = torch.randn(5, 6)
    torch.testing.assert_close(experts(x), x.expand(2, 5, 6))


def test_dropout_is_there_only_if_asked_for():
    assert not any(isinstance(m, torch.nn.Dropout) for m in MLP(3, [4], 2).modules())
    assert any(isinstance(m, torch.nn.Dropout) for m in MLP(3, [4], 2, 0.1).modules())


def batch(y: list[list[float]], weight: list[float]) -> Batch:
    rows = len(y)
    return Batch.of(
        np.zeros((rows, 1)),
        np.zeros((rows, 0)),
        np.zeros(rows),
        np.array(y),
        None,
        np.array(weight),
    )


def test_the_loss_is_masked_weighted_and_right_for_each_kind():
    net = Net(Shape(1, (), ((0,), (1,)), ("binary", "continuous")), "bce")
    links = torch.tensor([[0.3, 2.0], [-1.0, 5.0], [0.2, 7.0]])
    rows = batch([[1, 1.5], [0, np.nan], [1, 7]], [1.0, 3.0, 0.0])
    loss = net.outcome_loss(links, rows)
    chance = torch.sigmoid(links[:, 0])
    entropy = binary_cross_entropy(chance, rows.y[:, 0], reduction="none")
    torch.testing.assert_close(loss[:, 0], entropy * torch.tensor([1.0, 3.0, 0.0]))
    torch.testing.assert_close(loss[:, 1], torch.tensor([0.25, 0.0, 0.0]))


def test_an_unobserved_outcome_that_was_left_nan_stops_no_gradient():
    net = Net(Shape(1, (), ((0,), (1,)), ("binary", "continuous")), "bce")
    rows = batch([[1, 2]], [1.0])
    rows.y_mask[0, 1], rows.y[0, 1] = 0.0, torch.nan
    links = torch.zeros(1, 2, requires_grad=True)
    net.outcome_loss(links, rows).sum().backward()
    assert torch.isfinite(links.grad).all()
    assert links.grad[0, 1] == 0


def test_clipping_control_hides_no_possible_effect():
    net = Net(Shape(1, (), ((0,), (1,), (2,)), ("binary", "count")), "mse")
    links = torch.tensor([[[-0.02, -3.0], [0.01, -1.0], [1.4, 0.0]]])
    outcomes = net.respond(links)[0]
    torch.testing.assert_close(outcomes[:, 0], torch.tensor([0.0, 0.03, 1.0]))
    torch.testing.assert_close(outcomes[:, 1], links[0, :, 1])


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_training_may_start_at_the_mean_outcomes(loss):
    net = Net(Shape(1, (), ((0,), (1,)), ("binary", "continuous")), loss)
    net.start_from([0.03, 0.5])
    outcomes = net.respond(torch.zeros(1, 2, 2))
    torch.testing.assert_close(outcomes[0, 0], torch.tensor([0.03, 0.5]))
    assert "start" in net.state_dict(), "it is saved with the weights"


def test_of_arm_picks_each_rows_own():
    values = torch.arange(24.0).view(4, 3, 2)
    arm = torch.tensor([2, 0, 1, 1])
    assert torch.equal(of_arm(values, arm), values[torch.arange(4), arm])
