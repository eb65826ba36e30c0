"""Training that stops when it should, resumes exactly and says what went wrong."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from campaigns.errors import CampaignError, CheckFailed, DataError, EnvironmentProblem
from models import inference
from models.catalog import build
from models.data import Batch, Shape
from models.training import (
    EpochReport,
    InMemoryBatches,
    TrainConfig,
    bare,
    find_device,
    fit,
    predict,
    sized,
)

torch.set_num_threads(1)
SHAPE = Shape(3, (4,), ((0,), (1,), (2,)), ("binary", "continuous"))
SMALL = {"width": 4, "hidden": 8, "enhancer_width": 8, "experts": 2}


def make_rows(count: int = 300, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    arm = rng.integers(0, 3, count)
    y = np.column_stack([rng.random(count) < 0.3 + 0.3 * (arm > 0), x[:, 0] + arm])
    return Batch.of(x, rng.integers(0, 4, (count, 1)), arm, y.astype(float))


ROWS = make_rows()


def validate(net: Any) -> dict[str, float]:
    return {"loss": net.loss(ROWS)["loss"].item()}


def train(config: TrainConfig, *, net: Any = None, **more: Any) -> tuple[Any, Any]:
    config = sized(config, len(ROWS), SHAPE.features)
    net = net or build("mtmt", SHAPE, {**SMALL, "dropout": 0.2}, seed=0)
    batches = more.pop("batches", InMemoryBatches(ROWS, config.batch_size, config.seed))
    return net, fit(net, batches, more.pop("validate", validate), config, **more)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_and_reports_every_epoch():
    reports: list[EpochReport] = []
    net, result = train(TrainConfig(epochs=8, batch_size=32), on_epoch=reports.append)
    losses = [report.validation["loss"] for report in reports]
    assert [report.epoch for report in reports] == list(range(8))
    assert losses[-1] < 0.8 * losses[0]
    assert result.best_epoch == int(np.argmin(losses))
    assert set(reports[0].train) == {"loss", "control", "treated"}
    assert [epoch["validation"]["loss"] for epoch in result.history] == losses
    assert same(result.best_state, net.state_dict()), "the net ends with its best weights"
    net.eval()
    assert validate(net)["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_equal_seeds_give_equal_weights_and_leave_the_random_state():
    config = TrainConfig(epochs=2, batch_size=50)
    before = torch.get_rng_state()
    first, again = (train(config)[1].best_state for _ in range(2))
    other = train(TrainConfig(epochs=2, batch_size=50, seed=1))[1].best_state
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(precision):
    config = TrainConfig(epochs=6, batch_size=64, precision=precision)
    _, whole = train(config)
    saved = io.BytesIO()

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            torch.save(report.state(), saved)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_epoch=stop)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    fresh = build("mtmt", SHAPE, {**SMALL, "dropout": 0.2}, seed=99)
    _, resumed = train(config, net=fresh, resume=state)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert same(resumed.best_state, whole.best_state)


@pytest.mark.parametrize(
    ("rows", "features", "size"),
    [(100, 5, 128), (12_000, 5, 128), (60_000, 12, 512), (10_000_000, 12, 4096),
     (600_000, 700, 256), (600_000, 20_000, 128)],
)  # fmt: skip
def test_an_open_batch_size_follows_rows_and_features(rows: int, features: int, size: int):
    assert sized(TrainConfig(), rows, features).batch_size == size
    assert sized(TrainConfig(batch_size=77), rows, features).batch_size == 77


def test_wide_tables_are_asked_in_small_parts_and_answered_alike(monkeypatch: pytest.MonkeyPatch):
    net = build("mtmt", SHAPE, SMALL, seed=0)
    whole = predict(net, ROWS.x_num.numpy(), ROWS.x_cat.numpy())
    monkeypatch.setitem(inference.NET_CELLS, "cpu", 7 * SHAPE.features)
    asked, answer = [], net.potential_outcomes
    monkeypatch.setattr(
        net, "potential_outcomes", lambda *x: (asked.append(len(x[0])), answer(*x))[1]
    )
    parts = predict(net, ROWS.x_num.numpy(), ROWS.x_cat.numpy())
    assert max(asked) == 7
    assert parts == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_resuming_a_finished_run_trains_no_more():
    config = TrainConfig(epochs=3, batch_size=64)
    states: list[dict[str, Any]] = []
    _, whole = train(config, on_epoch=lambda report: states.append(report.state()))
    _, again = train(config, resume=states[-1], batches=lambda epoch: pytest.fail("it trained"))
    assert same(again.best_state, whole.best_state)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_stops_after_patience_and_keeps_the_best(mode):
    values = iter([3.0, 2.0, 1.0, 1.5, 1.0, 2.0, 0.0])
    sign = 1 if mode == "min" else -1
    states: list[dict[str, torch.Tensor]] = []

    def scripted(net: Any) -> dict[str, float]:
        states.append({name: value.clone() for name, value in net.state_dict().items()})
        return {"qini": sign * next(values)}

    config = TrainConfig(epochs=9, patience=3, metric="qini", mode=mode)
    _, result = train(config, validate=scripted)
    assert len(result.history) == 6
    assert result.best_epoch == 2
    assert same(result.best_state, states[2])


def test_batches_may_stream_without_a_length():
    def stream(epoch: int) -> Iterator[Batch]:
        yield from InMemoryBatches(ROWS, 50)(epoch)

    _, result = train(TrainConfig(epochs=6, batch_size=50), batches=stream)
    losses = [epoch["train"]["loss"] for epoch in result.history]
    assert losses[-1] < losses[0]


def test_the_rate_warms_up_then_falls(monkeypatch):
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def record(self: Any, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    train(TrainConfig(epochs=4, batch_size=30, warmup_steps=5, learning_rate=0.01))
    assert len(rates) == 40
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert max(rates) > 0.009
    assert rates[-1] < 0.001


def test_a_loss_that_is_not_finite_says_where_and_what_to_try():
    huge = make_rows()
    huge.x_num[5] = 1e30
    with pytest.raises(CheckFailed, match=r"the loss is (nan|inf) in epoch 0, by step .*: lower"):
        train(TrainConfig(epochs=1), batches=InMemoryBatches(huge, 50))


def test_a_metric_that_is_not_measured_lists_those_that_are():
    with pytest.raises(CampaignError, match="validation measures no 'qini'; give 'loss'"):
        train(TrainConfig(epochs=1, metric="qini"))


def test_a_metric_that_is_not_finite_stops_it():
    with pytest.raises(CheckFailed, match="'loss' is nan"):
        train(TrainConfig(epochs=1), validate=lambda net: {"loss": math.nan})


def test_an_epoch_without_batches_is_refused():
    with pytest.raises(DataError, match="epoch 0 had no batches"):
        train(TrainConfig(epochs=1), batches=lambda epoch: [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_refused():
    with pytest.raises(EnvironmentProblem, match="no usable GPU; give 'auto' or 'cpu'"):
        train(TrainConfig(device="cuda"))
    assert find_device("auto").type == "cpu"


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_workers_share_each_batch_and_use_every_row(world_size):
    rows = make_rows(101)
    rows.propensity = torch.arange(101.0)  # a name for each row
    shards = [
        list(InMemoryBatches(rows, 20, seed=4, rank=rank, world_size=world_size)(7))
        for rank in range(world_size)
    ]
    assert {len(shard) for shard in shards} == {6}
    whole = list(InMemoryBatches(rows, 20, seed=4)(7))
    for step, batch in enumerate(whole):
        parts = torch.cat([shard[step].propensity for shard in shards])
        assert torch.equal(parts, batch.propensity)
        sizes = [len(shard[step]) for shard in shards]
        assert max(sizes) - min(sizes) <= 1
    seen = torch.cat([batch.propensity for batch in whole])
    assert torch.equal(seen.sort().values, rows.propensity)
    assert max(map(len, whole)) - min(map(len, whole)) <= 1
    assert max(map(len, whole)) <= 20


def test_epochs_differ_and_the_order_may_be_kept():
    batches = InMemoryBatches(ROWS, 300)
    first, second, again = (next(iter(batches(epoch))) for epoch in (0, 1, 0))
    assert torch.equal(first.x_num, again.x_num)
    assert not torch.equal(first.x_num, second.x_num)
    kept = next(iter(InMemoryBatches(ROWS, 300, shuffle=False)(0)))
    assert torch.equal(kept.x_num, ROWS.x_num)


def test_too_few_rows_for_the_workers_is_refused():
    with pytest.raises(DataError, match="2 rows in batches of 8 leave some of 3 workers without"):
        InMemoryBatches(make_rows(2), 8, world_size=3)


@pytest.mark.parametrize("name", ["mtmt", "s_learner", "t_learner"])
def test_averaged_gradients_of_uneven_shards_are_those_of_the_batch(name):
    rows = make_rows(101)
    rows.y_mask[::3, 1] = 0
    rows.weight = torch.rand(101, generator=torch.Generator().manual_seed(0)) + 0.5
    net = build(name, SHAPE, seed=0)

    def gradients(rank: int, world_size: int) -> list[torch.Tensor]:
        net.zero_grad()
        batch = next(iter(InMemoryBatches(rows, 101, rank=rank, world_size=world_size)(0)))
        net(batch)["loss"].backward()
        return [parameter.grad.clone() for parameter in net.parameters()]

    shards = [gradients(rank, 3) for rank in range(3)]
    for whole, *parts in zip(gradients(0, 1), *shards):
        torch.testing.assert_close(sum(parts) / 3, whole, rtol=1e-4, atol=1e-6)


def test_predictions_come_in_any_number_of_batches_and_leave_the_mode():
    net = build("mtmt", SHAPE, {**SMALL, "dropout": 0.5}, seed=0).train()
    x_num, x_cat = ROWS.x_num.numpy(), ROWS.x_cat.numpy()
    whole, pieces = predict(net, x_num, x_cat), predict(net, x_num, x_cat, batch_size=7)
    np.testing.assert_allclose(pieces, whole, rtol=1e-5, atol=1e-6)
    assert whole.shape == (300, 3, 2)
    assert whole.dtype == np.float32
    assert net.training
    assert predict(net, x_num[:0], x_cat[:0]).shape == (0, 3, 2)
    assert bare(net) is net
