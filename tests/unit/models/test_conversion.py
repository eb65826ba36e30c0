"""The treatment as a field: what all conversion nets rest on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build
from models.conversion import TreatedFields, TreatedInput, TreatedMLP
from models.data import Batch, Shape

torch.set_num_threads(1)
LEVELS = ((0, 0), (1, 0), (0, 1), (2, 1))
SHAPE = Shape(3, (4, 2), LEVELS, ("binary", "binary", "continuous", "binary"), (0, 1, 3))
NAMES = ("single_task", "shared_bottom", "mmoe", "ple", "aitm", "esmm", "escm2")


def rows_of(shape: Shape, rows: int = 6) -> Batch:
    rng = np.random.default_rng(3)
    ids = [rng.integers(0, size, rows) for size in shape.categories]
    y = rng.integers(0, 2, (rows, shape.outcome_count)).astype(float)
    arm = np.arange(rows) % shape.arms
    return Batch.of(rng.normal(size=(rows, shape.numeric)), np.stack(ids, 1), arm, y)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_the_first_layer_is_linear_in_features_beside_the_arm():
    fields, rows = TreatedFields(SHAPE, 5), rows_of(SHAPE)
    layer = TreatedInput(3, fields.widths, 7)
    treated = fields(rows.x_num, rows.x_cat)
    made = layer(treated).unflatten(1, (6, 4))
    weight = torch.cat([layer.features.weight, layer.arm], dim=1)
    for arm in range(4):
        beside = torch.cat([treated.features, fields.arms()[arm].expand(6, -1)], dim=1)
        torch.testing.assert_close(made[:, :, arm], beside @ weight + layer.features.bias)


@pytest.mark.parametrize("copies", [1, 3])
def test_a_given_arm_is_that_arm_of_all(copies):
    fields, rows = TreatedFields(SHAPE, 5, copies), rows_of(SHAPE)
    net = TreatedMLP(3, fields.widths, [6, 4], 2)
    every = net(fields(rows.x_num, rows.x_cat)).unflatten(1, (6, 4))
    torch.testing.assert_close(net(fields.given(rows)), every[:, torch.arange(6), rows.arm])


def test_networks_with_embeddings_of_their_own_share_none():
    fields, rows = TreatedFields(SHAPE, 5, copies=2), rows_of(SHAPE)
    TreatedMLP(2, fields.widths, [6], 1)(fields(rows.x_num, rows.x_cat))[0].sum().backward()
    for table in (fields.embedding.table.weight, fields.arms.table):
        assert table.grad[:, :5].abs().sum() > 0
        assert table.grad[:, 5:].abs().sum() == 0, "the other network's"


@pytest.mark.parametrize("name", [*NAMES, "apem"])
def test_an_id_says_little_until_it_is_learned(name):
    net, rows = build(name, SHAPE, seed=1), rows_of(SHAPE)
    with torch.no_grad():
        links = net.links(rows.x_num, rows.x_cat)
        moved = net.links(rows.x_num, 1 - rows.x_cat.clamp(max=1))
        other = net.links(-rows.x_num, rows.x_cat)
    assert 0 < (moved - links).abs().mean() < 0.2 * (other - links).abs().mean()


@pytest.mark.parametrize("name", NAMES)
def test_training_computes_the_given_arm_of_all(name):
    net, rows = build(name, SHAPE, seed=1), rows_of(SHAPE)
    net.start_from([0.4, 0.2, 0.0, 0.1])
    with torch.no_grad():
        every = net.links(rows.x_num, rows.x_cat)
        torch.testing.assert_close(net.factual(rows), every[torch.arange(6), rows.arm])


@pytest.mark.parametrize("name", NAMES)
def test_all_arms_read_the_features_once(name):
    net, rows = build(name, SHAPE, seed=1), rows_of(SHAPE)
    read = []
    for module in net.modules():
        if isinstance(module, TreatedInput):
            module.features.register_forward_pre_hook(lambda _, x: read.append(x[0].shape[-2]))
    net.links(rows.x_num, rows.x_cat)
    assert read
    assert set(read) == {6}, "rows, not rows times arms"


@pytest.mark.parametrize("name", ["aitm", "esmm", "escm2"])
def test_a_chain_without_events_is_answered_side_by_side(name):
    shape = Shape(3, (4, 2), LEVELS, ("continuous", "count", "binary"), (0, 1))
    net, rows = build(name, shape, seed=1), rows_of(shape)
    net(rows)["loss"].backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_trunk_is_what_reads_the_features_and_no_treatment(name):
    net = build(name, SHAPE, seed=1)
    read = {n: p for n, p in net.named_parameters() if n.startswith(net.trunk)}
    assert len(read) == 3, "embeddings of categories, weight and bias of the first layer"
    first = next(m for m in net.modules() if isinstance(m, TreatedInput)).features
    assert first.weight is read[f"{net.trunk[1]}.weight"]
