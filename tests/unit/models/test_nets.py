"""What every net of the catalogue must hold to, on campaigns of any shape that it supports."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.catalog import Entry, build, catalog, lacks
from models.data import Batch, Shape
from models.training import InMemoryBatches, TrainConfig, fit, predict

torch.set_num_threads(1)
NETS = sorted(
    name for name, entry in catalog().items() if entry.answers == "outcomes" and not entry.learner
)
FEW = settings(max_examples=12, deadline=None)


@st.composite
def shapes(draw: st.DrawFn, entry: Entry) -> Shape:
    """Any shape that the net supports: arms, factors, outcomes, features of each kind."""
    able, needs = entry.supports, entry.supports.needs
    factors = draw(st.integers(2 if "factors" in needs else 1, 3)) if able.factors else 1
    fewest = 2 if "arms" in needs else 1
    treated = draw(st.integers(max(fewest, factors - 1), 4)) if able.arms else 1
    if factors == 1:
        levels = tuple((level,) for level in range(treated + 1))
    else:
        single = np.vstack([np.zeros((1, factors), int), np.eye(factors, dtype=int)])
        levels = tuple(map(tuple, [*single.tolist(), [1] * factors, [2] + [1] * (factors - 1)]))
    outcomes = draw(st.integers(2 if {"outcomes", "sequence"} & set(needs) else 1, 3))
    kinds = draw(st.lists(st.sampled_from(able.kinds), min_size=outcomes, max_size=outcomes))
    sizes = [max(column) + 1 for column in zip(*levels)]
    dosed = able.dose and ("dose" in needs or draw(st.booleans()))
    chains = getattr(entry.net, "chains", False) and kinds[:2] == ["binary", "binary"]
    return Shape(
        numeric=(numeric := draw(st.integers(0, 4))),
        categories=tuple(draw(st.lists(st.integers(1, 9), min_size=not numeric, max_size=3))),
        levels=levels,
        outcomes=tuple(kinds if able.outcomes else kinds[:1]),
        sequence=(0, 1) if "sequence" in needs or (chains and draw(st.booleans())) else (),
        doses=tuple(
            tuple(np.linspace(0, 1, size).tolist()) if c == 0 or draw(st.booleans()) else ()
            for c, size in enumerate(sizes)
        )
        if dosed
        else (),
    )


def make_batch(shape: Shape, rows: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    outcomes = [
        rng.integers(0, 2, rows) if kind == "binary" else rng.normal(size=rows)
        for kind in shape.outcomes
    ]
    y = np.stack(outcomes, axis=1).astype(float)
    y[rng.random(y.shape) < 0.1] = np.nan
    ids = [rng.integers(0, size, rows) for size in shape.categories]
    return Batch.of(
        rng.normal(size=(rows, shape.numeric)),
        np.stack(ids, axis=1) if ids else np.zeros((rows, 0)),
        rng.integers(0, shape.arms, rows),
        y,
        np.full(rows, 1 / shape.arms),
        dose=rng.uniform(-1, 1, (rows, shape.factors)),  # half of them as the arm has it
    )


def settings_of(name: str, draw: Any) -> dict[str, Any]:
    """Small sizes, and either loss where the net has one."""
    config = catalog()[name].config()
    small = {"width": 8, "hidden": 8, "enhancer_width": 8, "embedding": 4, "dropout": 0.0}
    chosen = {key: value for key, value in small.items() if hasattr(config, key)}
    if hasattr(config, "loss"):
        chosen["loss"] = draw(st.sampled_from(["mse", "bce"]))
    return chosen


@pytest.mark.parametrize("name", NETS)
def test_the_strategy_only_makes_shapes_that_the_net_supports(name):
    @FEW
    @given(shapes(catalog()[name]))
    def holds(shape: Shape) -> None:
        assert not lacks(catalog()[name].supports, shape)

    holds()


@pytest.mark.parametrize("name", NETS)
def test_every_arm_and_outcome_is_answered_and_every_weight_learns(name):
    @FEW
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        shape = data.draw(shapes(catalog()[name]))
        net = build(name, shape, settings_of(name, data.draw), seed=1)
        batch = make_batch(shape, 33, seed=2)
        outcomes = net.potential_outcomes(batch.x_num, batch.x_cat)
        assert outcomes.shape == (33, shape.arms, shape.outcome_count)
        assert outcomes.dtype == torch.float32
        assert torch.isfinite(outcomes).all()
        binary = torch.tensor([kind == "binary" for kind in shape.outcomes])
        assert ((outcomes[..., binary] >= 0) & (outcomes[..., binary] <= 1)).all()
        terms = net(batch)
        assert all(term.dim() == 0 for term in terms.values())
        terms["loss"].backward()
        for weight, parameter in net.named_parameters():
            assert parameter.grad is not None, f"{weight} is outside the loss"
            assert torch.isfinite(parameter.grad).all(), weight

    holds()


@pytest.mark.parametrize("name", NETS)
def test_rows_do_not_see_each_other(name):
    @FEW
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        shape = data.draw(shapes(catalog()[name]))
        net = build(name, shape, settings_of(name, data.draw), seed=1).eval()
        batch = make_batch(shape, 17, seed=3)
        order = torch.randperm(17)
        shuffled = batch.select(order)
        with torch.no_grad():
            whole = net.potential_outcomes(batch.x_num, batch.x_cat)
            moved = net.potential_outcomes(shuffled.x_num, shuffled.x_cat)
            alone = net.potential_outcomes(batch.x_num[4:5], batch.x_cat[4:5])
            torch.testing.assert_close(moved, whole[order], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(alone, whole[4:5], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(net(shuffled)["loss"], net(batch)["loss"])

    holds()


@pytest.mark.parametrize("name", NETS)
def test_a_saved_net_answers_the_same(name):
    shape = example(name)
    net, other = (build(name, shape, seed=seed).eval() for seed in (1, 2))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = make_batch(shape, 40, seed=4)
    with torch.no_grad():
        for answer in (net, other):
            answer.answered = answer.potential_outcomes(batch.x_num, batch.x_cat)
    assert torch.equal(net.answered, other.answered)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_bfloat16_matmuls_change_little(name, loss):
    shape = example(name)
    config = {"loss": loss} if hasattr(catalog()[name].config(), "loss") else {}
    net = build(name, shape, config, seed=1)
    batch = make_batch(shape, 64, seed=5)
    full = net(batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = net(batch)["loss"]
        outcomes = net.potential_outcomes(batch.x_num, batch.x_cat)
    assert half.dtype == outcomes.dtype == torch.float32
    half.backward()
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", NETS)
def test_a_planted_effect_is_found_in_seconds(name):
    """Half the units respond (+0.4), the others don't: closer to the truth than any constant."""
    shape = example(name)
    rng = np.random.default_rng(6)
    x = rng.normal(size=(8000, shape.numeric))
    ids = np.zeros((8000, len(shape.categories)))
    responds = x[:, 0] > 0
    effect = 0.4 * responds[:, None] * (np.arange(shape.arms) > 0)
    truth = np.repeat((0.2 + effect)[..., None], shape.outcome_count, axis=2)
    arm = rng.integers(0, shape.arms, 8000)
    y = (rng.random((8000, shape.outcome_count)) < truth[np.arange(8000), arm]).astype(float)
    net = build(name, shape, seed=0)
    net.start_from(y.mean(0).tolist())
    rows = Batch.of(x[:6000], ids[:6000], arm[:6000], y[:6000], np.full(6000, 1 / shape.arms))
    held_out = Batch.of(x[6000:], ids[6000:], arm[6000:], y[6000:], np.full(2000, 1 / shape.arms))

    def validate(net: Any) -> dict[str, float]:
        return {"loss": float(net.loss(held_out)["loss"])}

    config = TrainConfig(epochs=5, batch_size=256, learning_rate=5e-3)
    result = fit(net, InMemoryBatches(rows, 256), validate, config)
    outcomes = predict(net, x[6000:], ids[6000:])
    error = (outcomes[:, 1:] - outcomes[:, :1]) - (truth[6000:, 1:] - truth[6000:, :1])
    constant = 0.2  # the best constant, 0.2 for all, is off by this
    assert np.sqrt(np.mean(error**2)) < 0.7 * constant
    assert result.history[result.best_epoch]["validation"]["loss"] <= min(
        epoch["validation"]["loss"] for epoch in result.history
    )


def example(name: str) -> Shape:
    """A small campaign of binary outcomes, as rich as the net supports."""
    able = catalog()[name].supports
    levels: tuple[tuple[int, ...], ...] = ((0,), (1,), (2,)) if able.arms else ((0,), (1,))
    if "factors" in able.needs:
        levels = ((0, 0), (1, 0), (0, 1), (1, 1))
    outcomes = ("binary", "binary") if able.outcomes else ("binary",)
    doses = ((0.0, 0.5, 1.0),) if "dose" in able.needs else ()
    return Shape(4, (3,), levels, outcomes, (0, 1) if "sequence" in able.needs else (), doses=doses)
