"""FlexTENet against Curth & van der Schaar: layers and penalties written out, the models it contains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.data import Batch, Shape
from models.nets.flextenet import FlexTENet, FlexTENetConfig

torch.set_num_threads(1)
SHAPE = Shape(3, (4,), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"embedding": 2, "width": 5, "hidden": 4, "loss": "mse"}


def flextenet(seed: int = 0, shape: Shape = SHAPE, **settings) -> FlexTENet:
    torch.manual_seed(seed)
    return FlexTENet(shape, FlexTENetConfig(**{**SMALL, **settings}))


def rows_of(rows: int = 20) -> Batch:
    rng = np.random.default_rng(0)
    y = np.stack([rng.integers(0, 2, rows), rng.normal(size=rows)], axis=1)
    ids = rng.integers(0, 4, (rows, 1))
    return Batch.of(rng.normal(size=(rows, 3)), ids, rng.integers(0, 3, rows), y)


def weights(net: FlexTENet) -> list[dict[str, np.ndarray]]:
    """Of each layer, with an arm's private weight as one matrix over [s, p]."""
    layers = []
    for layer in net.layers:
        w = {name: value.double().numpy() for name, value in layer.state_dict().items()}
        own = w.get("reads_own", np.zeros((3, 0, w["reads_shared"].shape[2])))
        w["private"] = np.concatenate([w["reads_shared"], own], axis=1)
        layers.append(w)
    return layers


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_layers_written_out(layers):
    net, batch = flextenet(layers=layers), rows_of()
    table = net.features.embedding.table.weight.detach().double().numpy()
    expected = np.zeros((20, 3, 2))
    for row in range(20):
        x = np.concatenate([batch.x_num[row].double().numpy(), table[int(batch.x_cat[row, 0])]])
        for arm in range(3):
            s, p = x, np.zeros(0)
            for depth, w in enumerate(weights(net)):
                into = np.concatenate([s, p])
                s = s @ w["shared"] + w["shared_bias"]
                p = into @ w["private"][arm] + w["private_bias"][arm, 0]
                if depth < layers:
                    s, p = np.maximum(s, 0), np.maximum(p, 0)
            expected[row, arm] = s + p
    with torch.no_grad():
        np.testing.assert_allclose(net.links(batch.x_num, batch.x_cat), expected, atol=1e-5)


def test_the_penalties_written_out():
    net, batch = flextenet(orthogonal=0.3, private=0.2), rows_of()
    overlap, size = 0.0, 0.0
    for w in weights(net):
        for arm in range(3):
            reads = w["private"][arm][: len(w["shared"])]
            overlap += np.linalg.norm(w["shared"].T @ reads) ** 2 / 3
            size += (w["private"][arm] ** 2).sum() / 3
    with torch.no_grad():
        terms, links = net(batch), net.factual(batch)
        factual = (links - batch.y).square().sum(1).mean()
    torch.testing.assert_close(terms["factual"], factual)
    assert float(terms["overlap"]) == pytest.approx(overlap, rel=1e-5)
    assert float(terms["private"]) == pytest.approx(size, rel=1e-5)
    total = float(factual) + 0.3 * overlap + 0.2 * size
    assert float(terms["loss"]) == pytest.approx(total, rel=1e-5)


def test_without_private_weights_all_arms_are_one_model():
    net, batch = flextenet(), rows_of()
    with torch.no_grad():
        for layer in net.layers:
            for name, parameter in layer.named_parameters():
                if not name.startswith("shared"):
                    parameter.zero_()
        links = net.links(batch.x_num, batch.x_cat)
        shared, private = net.parts_of(batch.x_num, batch.x_cat)
    torch.testing.assert_close(links, shared[:, None].expand_as(links))
    assert float(private.abs().max()) == 0


def test_without_shared_weights_arms_share_nothing():
    net, batch = flextenet(), rows_of()
    with torch.no_grad():
        for layer in net.layers:
            layer.shared.zero_()
            layer.shared_bias.zero_()
        before = net.links(batch.x_num, batch.x_cat)
        for layer in net.layers:
            layer.reads_shared[1] += 1.0
        after = net.links(batch.x_num, batch.x_cat)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])


def trained(effect: np.ndarray, x: np.ndarray, **settings) -> tuple[FlexTENet, Batch]:
    from models.training import InMemoryBatches, TrainConfig, fit

    rng = np.random.default_rng(3)
    arm = rng.integers(0, 2, len(x))
    y = (np.sin(2 * x[:, 0]) + arm * effect + 0.2 * rng.normal(size=len(x)))[:, None]
    rows = Batch.of(x, np.zeros((len(x), 0)), arm, y)
    shape = Shape(2, (), ((0,), (1,)), ("continuous",))
    net = flextenet(shape=shape, **{"width": 32, "hidden": 16, **settings})
    config = TrainConfig(epochs=8, learning_rate=1e-2, batch_size=128)
    fit(net, InMemoryBatches(rows, 128), lambda net: {"loss": float(net(rows)["loss"])}, config)
    return net, rows


def test_what_arms_share_moves_to_the_shared_layers():
    """The outcome is the same in both arms: the heavier private weights, the less of it is theirs."""
    x = np.random.default_rng(0).normal(size=(2000, 2))
    ratios = []
    for weight in (0.0, 0.03):
        net, rows = trained(np.zeros(2000), x, private=weight)
        with torch.no_grad():
            shared, private = net.parts_of(rows.x_num, rows.x_cat)
        ratios.append(float(private.std() / shared.std()))
        assert float((private[1] - private[0]).abs().mean()) < 0.1
    assert ratios[1] < 0.5 * ratios[0]


def test_what_arms_do_not_share_is_found_too():
    x = np.random.default_rng(0).normal(size=(3000, 2))
    effect = np.where(x[:, 1] > 0, 1.0, -1.0)
    net, rows = trained(effect, x)
    with torch.no_grad():
        links = net.links(rows.x_num, rows.x_cat)[..., 0].numpy()
    assert np.sqrt(np.mean((links[:, 1] - links[:, 0] - effect) ** 2)) < 0.3


def test_orthogonality_keeps_the_parts_apart():
    x = np.random.default_rng(0).normal(size=(1000, 2))
    loose, tight = (trained(x[:, 1], x, orthogonal=weight)[0] for weight in (0.0, 1.0))
    overlap = [
        float(sum(layer.overlap() for layer in net.layers).detach()) for net in (loose, tight)
    ]
    assert overlap[1] < 0.1 * overlap[0]
