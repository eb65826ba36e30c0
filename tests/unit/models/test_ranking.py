"""What every ranking net must hold to: one cohort whatever the batches, and effects in its order."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import CampaignError
from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.objective import value_and_cost
from campaigns.worlds import world
from models.calibration import KNOTS, fit_curves
from models.catalog import Entry, build, catalog, lacks
from models.data import Batch, Shape
from models.dataset import fit_recipe, prepare
from models.plan import make_plan
from models.ranking import cohort_sums
from models.selection import Validation
from models.training import InMemoryBatches, TrainConfig, fit
from models.uplift_model import UpliftModel

torch.set_num_threads(1)
NETS = sorted(name for name, entry in catalog().items() if entry.answers == "scores")
FEW = settings(max_examples=10, deadline=None)
THREE = Shape(4, (3,), ((0,), (1,), (2,)), ("binary", "continuous"), worth=(2.0, 0.5))
PAID = Shape(
    3, (), ((0,), (1,)), ("continuous", "continuous"), (), (1.5, 0.0), (0.0, 0.3), 1, 0.7
)  # fmt: skip


@st.composite
def shapes(draw: st.DrawFn, entry: Entry) -> Shape:
    """Campaigns of one factor or two, with outcomes of any kind, one of which may be the cost."""
    arms = draw(
        st.sampled_from([((0,), (1,)), ((0,), (1,), (2,)), ((0, 0), (1, 0), (0, 1), (1, 1))])
    )
    kinds = draw(st.lists(st.sampled_from(entry.supports.kinds), min_size=1, max_size=3))
    paid = draw(st.booleans()) and len(kinds) > 1 and kinds[-1] != "binary"
    numeric = draw(st.integers(0, 3))
    return Shape(
        numeric=numeric,
        categories=tuple(draw(st.lists(st.integers(1, 5), min_size=not numeric, max_size=2))),
        levels=arms,
        outcomes=tuple(kinds),
        worth=tuple([1.5] * (len(kinds) - paid) + [0.0] * paid),
        costs=tuple(0.25 * arm for arm in range(len(arms))),
        cost_outcome=len(kinds) - 1 if paid else None,
        cost_scale=3.0 if paid else 1.0,
    )


def rows_of(shape: Shape, rows: int, seed: int) -> Batch:
    """Noise with a small effect, some outcomes unobserved, arms drawn with unequal probabilities."""
    rng = np.random.default_rng(seed)
    chances = np.arange(1, shape.arms + 1) / np.arange(1, shape.arms + 1).sum()
    arm = rng.choice(shape.arms, rows, p=chances)
    x = rng.normal(size=(rows, shape.numeric))
    ids = [rng.integers(0, size, rows) for size in shape.categories]
    latent = rng.normal(size=(rows, shape.outcome_count)) + 0.5 * (arm > 0)[:, None]
    binary = np.array([kind == "binary" for kind in shape.outcomes])
    y = np.where(binary, latent > 0.3, latent)
    y = np.where(rng.random(y.shape) < 0.1, np.nan, y)
    cat = np.stack(ids, axis=1) if ids else np.zeros((rows, 0))
    return Batch.of(x, cat, arm, y, chances[arm])


def slow_effects(net: Any, gates: np.ndarray, y: np.ndarray, rows: Batch) -> np.ndarray:
    """Hajek effects of every gate, arm and outcome [Q, A - 1, K], by loops."""
    arm, p = rows.arm.numpy(), rows.propensity.double().numpy()
    mask, weight = rows.y_mask.numpy(), rows.weight.double().numpy()
    effects = np.zeros((gates.shape[1], gates.shape[2], y.shape[1]))
    for q, a, k in np.ndindex(effects.shape):
        g = gates[:, q, a] * weight / p * mask[:, k]
        mean = [np.average(y[arm == side, k], weights=g[arm == side]) for side in (a + 1, 0)]
        effects[q, a, k] = mean[0] - mean[1]
    return effects


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [THREE, PAID])
def test_the_aggregated_effects_written_out(name, shape):
    net, rows = build(name, shape, seed=1).eval(), rows_of(shape, 300, seed=2)
    with torch.no_grad():
        gates = net.gates(net.scores(rows.x_num, rows.x_cat)[:, 1:])
        found = net.relative(cohort_sums(gates, rows.y, rows))
        plain = net.relative(cohort_sums(torch.ones_like(gates[:, :1]), rows.y, rows))
    tau = slow_effects(net, gates.double().numpy(), rows.y.double().numpy(), rows)
    value, cost = tau @ shape.values, np.broadcast_to(shape.arm_costs[1:], tau.shape[:2])
    if shape.cost_outcome is not None:
        cost = tau[..., shape.cost_outcome] * shape.cost_scale
    size = gates.double().numpy().mean(0)
    np.testing.assert_allclose(found.size, size, rtol=1e-4)
    last = (size[-1] * value[-1]).sum() / size[-1].sum()  # the last gate is the unit
    np.testing.assert_allclose(found.value, value / abs(last), rtol=2e-3, atol=2e-4)
    last = (size[-1] * cost[-1]).sum() / size[-1].sum()
    np.testing.assert_allclose(found.cost, cost / abs(last), rtol=2e-3, atol=2e-4)
    assert float(plain.of_pairs()[0].abs()) == pytest.approx(1.0, abs=1e-5), "relative to everyone"


@pytest.mark.parametrize("name", NETS)
def test_every_shape_is_served_and_every_weight_learns(name):
    @FEW
    @given(shapes(catalog()[name]))
    def holds(shape: Shape) -> None:
        assert not lacks(catalog()[name].supports, shape)
        net, rows = build(name, shape, {"width": 8, "embedding": 3}, seed=1), rows_of(shape, 64, 3)
        scores = net.scores(rows.x_num, rows.x_cat)
        assert scores.shape == (64, shape.arms)
        assert (scores[:, 0] == 0).all()
        terms = net(rows)
        assert all(term.dim() == 0 and torch.isfinite(term) for term in terms.values())
        terms["loss"].backward()
        for weight, parameter in net.named_parameters():
            assert parameter.grad is not None, f"{weight} is outside the loss"
            assert torch.isfinite(parameter.grad).all(), weight
        net.eval().finish(rows)
        outcomes = net.potential_outcomes(rows.x_num, rows.x_cat)
        assert outcomes.shape == (64, shape.arms, shape.outcome_count)
        assert torch.isfinite(outcomes).all()
        binary = torch.tensor([kind == "binary" for kind in shape.outcomes])
        assert ((outcomes[..., binary] >= 0) & (outcomes[..., binary] <= 1)).all()

    holds()


@pytest.mark.parametrize("name", NETS)
def test_scores_see_one_row_and_the_loss_no_order(name):
    net, rows = build(name, THREE, seed=1).eval(), rows_of(THREE, 90, seed=4)
    order = torch.randperm(90)
    with torch.no_grad():
        whole = net.scores(rows.x_num, rows.x_cat)
        alone = net.scores(rows.x_num[4:5], rows.x_cat[4:5])
        moved = net(rows.select(order))["loss"]
        torch.testing.assert_close(alone, whole[4:5], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moved, net(rows)["loss"], rtol=1e-4, atol=1e-5)
        assert net.cohort_loss(rows, 7) == pytest.approx(net(rows)["objective"].item(), abs=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_a_cohort_without_an_arm_leaves_the_loss_finite(name):
    net, rows = build(name, THREE, seed=1), rows_of(THREE, 90, seed=4)
    for arms in ([0], [1, 2], [0, 2]):
        some = rows.select(torch.isin(rows.arm, torch.tensor(arms)).nonzero().squeeze(1))
        fresh = copy.deepcopy(net)
        fresh(some)["loss"].backward()
        assert all(torch.isfinite(weight.grad).all() for weight in fresh.parameters())


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("moved", [10.0, -4.0])
def test_the_outcomes_level_has_no_part_in_the_objective(name, moved):
    shape = Shape(3, (), ((0,), (1,)), ("continuous",))
    net, rows = build(name, shape, {"baseline": False}, seed=1).eval(), rows_of(shape, 400, seed=5)
    first = net.cohort_loss(rows, 1000)
    rows.y += moved
    assert net.cohort_loss(rows, 1000) == pytest.approx(first, abs=2e-3)


def gradient(net: Any, rows: Batch) -> torch.Tensor:
    net.zero_grad()
    net(rows)["objective"].backward()
    return torch.cat([each.grad.flatten() for each in net.ranker.parameters()])


@pytest.mark.parametrize("name", NETS)
def test_small_batches_have_the_whole_cohorts_gradient(name):
    """Still weights, two passes: the batches' mean gradient, with the sums kept and without."""
    shape = Shape(3, (), ((0,), (1,)), ("continuous", "continuous"), (), (1.0, 0.0), (), 1)
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(6400, 3)), rng.integers(0, 2, 6400)
    effects = np.column_stack([0.2 + 0.1 * x[:, 0], 0.3 + 0.1 * x[:, 1]]) * arm[:, None]
    y = effects + rng.normal(size=(6400, 2))
    rows = Batch.of(x, np.zeros((6400, 0)), arm, y, np.full(6400, 0.5))
    config = {"dropout": 0.0, "memory": 6400, "baseline": False}
    net = build(name, shape, config, seed=1)
    whole = gradient(copy.deepcopy(net).eval(), rows)

    def by_batches(forget: bool) -> torch.Tensor:
        mine, parts = copy.deepcopy(net), torch.arange(6400).split(64)
        for part in parts:
            mine(rows.select(part))
        if forget:
            mine.eval()
        return torch.stack([gradient(mine, rows.select(part)) for part in parts]).mean(0)

    likeness = [
        float(torch.cosine_similarity(by_batches(forget), whole, dim=0)) for forget in (False, True)
    ]
    assert likeness[0] > 0.97
    assert likeness[0] > likeness[1], "parts taken for cohorts are another objective"
    size = float(by_batches(False).norm() / whole.norm())
    assert size == pytest.approx(1.0, abs=0.15)


def test_a_pass_in_parts_leaves_the_sums_of_the_whole():
    config = {"dropout": 0.0, "baseline": False, "memory": 1000}
    parts, whole = (build("direct_ranking", PAID, config, seed=1) for _ in range(2))
    rows = rows_of(PAID, 900, seed=1)
    for part in torch.arange(900).split(300):
        parts(rows.select(part))
    whole(rows)
    torch.testing.assert_close(parts.running, whole.running, rtol=1e-4, atol=1e-6)
    whole(rows)  # more than the memory holds: the older rows fade
    assert int(whole.seen) == 1800
    torch.testing.assert_close(parts.running, whole.running, rtol=1e-4, atol=1e-6)


def planted(rows: int, seed: int) -> tuple[np.ndarray, Batch, np.ndarray, np.ndarray]:
    """A trial in which value and cost effects differ, and who gains most isn't who should be taken."""
    rng = np.random.default_rng(seed)
    x, arm = rng.normal(size=(rows, 3)), rng.integers(0, 2, rows)
    cost = 0.2 + 1.6 * (x[:, 0] > 0)
    value = cost * np.where(x[:, 1] > 0, 1.5, 0.5)
    y = np.column_stack([x[:, 2] + arm * value, 1 + arm * cost]) + rng.normal(size=(rows, 2))
    batch = Batch.of(x, np.zeros((rows, 0)), arm, y, np.full(rows, 0.5))
    return x, batch, value, cost


@pytest.mark.parametrize("name", NETS)
def test_a_planted_ranking_is_found_in_seconds(name):
    shape = Shape(3, (), ((0,), (1,)), ("continuous", "continuous"), (), (1.0, 0.0), (), 1)
    x, rows, *_ = planted(6000, 1)
    net = build(name, shape, seed=0)
    config = TrainConfig(epochs=10, batch_size=512, learning_rate=5e-3, device="cpu")
    held_out = planted(4000, 2)[1]
    fit(
        net,
        InMemoryBatches(rows, 512),
        lambda net: {"loss": net.cohort_loss(held_out, 8192)},
        config,
    )
    net.eval().finish(held_out)
    x, fresh, value, cost = planted(4000, 3)
    with torch.no_grad():
        score = net.scores(fresh.x_num, fresh.x_cat)[:, 1].numpy()
        outcomes = net.potential_outcomes(fresh.x_num, fresh.x_cat).numpy()
    top = np.argsort(-score)[:2000]
    assert (x[top, 1] > 0).mean() > 0.85, "those who give more for what they cost"
    effects = outcomes[:, 1] - outcomes[:, 0]
    order = np.argsort(score)
    ratio = effects[order, 0].astype(float) / effects[order, 1]
    assert (np.diff(ratio) > -1e-5).all(), "ratios are in the order of the scores"
    assert effects[top, 0].mean() == pytest.approx(value[top].mean(), rel=0.3)
    assert effects[:, 1].mean() == pytest.approx(cost.mean(), rel=0.3)


@pytest.mark.parametrize("name", NETS)
def test_bfloat16_matmuls_change_little(name):
    net, rows = build(name, THREE, {"dropout": 0.0}, seed=1).eval(), rows_of(THREE, 500, seed=5)
    full = net(rows)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = net(rows)["loss"]
    half.backward()
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", NETS)
def test_a_saved_net_scores_and_answers_the_same(name):
    net, other = (build(name, THREE, seed=seed).eval() for seed in (1, 2))
    rows = rows_of(THREE, 900, seed=6)
    net.finish(rows)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for answer in ("scores", "potential_outcomes"):
            mine, theirs = (getattr(each, answer)(rows.x_num, rows.x_cat) for each in (net, other))
            assert torch.equal(mine, theirs)


def curve_rows(score: np.ndarray, effects: np.ndarray, seed: int) -> Batch:
    """Rows whose effects [N, K] are known, of a trial with p = 0.5."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, len(score))
    y = effects * arm[:, None] + 0.3 * rng.normal(size=effects.shape)
    return Batch.of(score[:, None], np.zeros((len(score), 0)), arm, y, np.full(len(score), 0.5))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(30, 3000))
def test_curves_keep_the_scores_order_whatever_the_log_says(seed, paid, count):
    """Noise, effects of either sign, ties, few rows: value / cost rises with the score all the same."""
    rng = np.random.default_rng(seed)
    score = np.round(np.tanh(rng.normal(size=count)), rng.integers(1, 6))
    effects = rng.normal(size=(1, 2)) + np.outer(score, rng.normal(size=2))
    shape = Shape(
        1, (), ((0,), (1,)), ("continuous", "continuous"), (), (1.0, 0.0 if paid else 2.0),
        (0.0, 0.5), 1 if paid else None, 2.0 if paid else 1.0,
    )  # fmt: skip
    curves = fit_curves(score[:, None], curve_rows(score, effects, seed), shape)
    assert curves.knots.shape == (1, KNOTS)
    assert np.isfinite(curves.effects).all()
    at = np.linspace(-1, 1, 500)
    one, two = (np.interp(at, curves.knots[0], each) for each in curves.effects[0].T)
    ratio = one / (2.0 * two) if paid else (one + 2.0 * two) / 0.5
    assert (np.diff(ratio) > 0).all()
    assert (two > 0).all() or not paid


def test_curves_are_the_effects_where_these_follow_the_score():
    rng = np.random.default_rng(0)
    score = rng.uniform(-1, 1, 60_000)
    effects = np.column_stack([0.5 + 0.4 * score, 0.6 - 0.2 * score])
    shape = Shape(
        1, (), ((0,), (1,)), ("continuous", "continuous"), (), (2.0, 0.0), (), 1, 1.0
    )  # fmt: skip
    curves = fit_curves(score[:, None], curve_rows(score, effects, 0), shape)
    at = np.linspace(-0.9, 0.9, 19)
    for k, slope in enumerate([0.5 + 0.4 * at, 0.6 - 0.2 * at]):
        np.testing.assert_allclose(
            np.interp(at, curves.knots[0], curves.effects[0, :, k]), slope, atol=0.06
        )
    assert curves.control == pytest.approx([0.0, 0.0], abs=0.02)


def test_curves_weigh_rows_by_inverse_propensity():
    """Those who gain most are treated most: means without weights would mistake the effect."""
    rng = np.random.default_rng(1)
    high = rng.random(80_000) < 0.5
    p = np.where(high, 0.9, 0.2)
    arm = (rng.random(80_000) < p).astype(int)
    y = (high + arm * high + 0.1 * rng.normal(size=80_000))[:, None]
    rows = Batch.of(y, np.zeros((80_000, 0)), arm, y, np.where(arm == 1, p, 1 - p))
    score = rng.uniform(-1, 1, (80_000, 1))
    curves = fit_curves(score, rows, Shape(1, (), ((0,), (1,)), ("continuous",)))
    assert curves.effects.mean() == pytest.approx(0.5, abs=0.03)
    assert curves.control[0] == pytest.approx(0.5, abs=0.03)


CAMPAIGN = parse_campaign("""
name: bonus
unit: player_id
source: {kind: simulator, world: game_bonus, rows: 12000}
timestamp: event_timestamp
features:
  numeric: [days_since_login, games_7d, win_rate_7d, sessions_30d]
  categorical: [device]
treatments:
  bonus: {column: bonus, control: none, levels: {none: , coins: {cost: 0.30}, skin: {cost: 0.55}}}
propensity: propensity
outcomes:
  login_next_day: {kind: binary, value: 1.0}
  plays_more_7d: {kind: binary, value: 2.0}
budget: {amount: 350.0}
model: {name: direct_ranking, search: false}
""")


@pytest.mark.parametrize("name", NETS)
def test_from_a_frame_to_a_model_that_is_saved_and_answers(name, tmp_path):
    frame = decision_frame(world("game_bonus").log(12_000, seed=1), CAMPAIGN, "log")
    prepared = prepare(frame, CAMPAIGN)
    shape = prepared.recipe.shape
    assert shape.worth == (1.0, 2.0)
    assert shape.costs == (0.0, 0.30, 0.55)
    net = build(name, shape, {"width": 16}, seed=0)
    config = TrainConfig(epochs=2, batch_size=1024, metric="score", mode="max", device="cpu")
    result = fit(net, InMemoryBatches(prepared.train, 1024), Validation.of(prepared), config)
    measured = result.history[-1]["validation"]
    assert set(measured) == {"loss", "score"}
    assert measured["score"] == -measured["loss"]
    net.eval().finish(prepared.validation)
    recipe = prepared.recipe
    made = UpliftModel(
        name, {"width": 16}, shape, recipe.encoder, recipe.scaler, net, CAMPAIGN
    )  # fmt: skip
    made.save(tmp_path / "model")
    loaded = UpliftModel.load(tmp_path / "model")
    assert loaded.shape == shape
    predicted = loaded.predict(frame)
    np.testing.assert_array_equal(predicted, made.predict(frame))
    value, cost = value_and_cost(predicted, CAMPAIGN)
    x = recipe.encoder.encode({each: frame[each].to_numpy() for each in CAMPAIGN.features.names})
    with torch.no_grad():
        scores = net.scores(*(torch.as_tensor(each) for each in x)).numpy()
    for arm in (1, 2):
        order = np.argsort(scores[:, arm])
        assert (np.diff(value[order, arm] / cost[order, arm]) > -1e-5).all()


def test_only_randomized_rows_reach_a_ranking_net(tmp_path):
    frame = decision_frame(world("game_bonus").log(4_000, seed=1), CAMPAIGN, "log")
    frame["explored"] = np.arange(len(frame)) % 4 > 0
    frame.to_parquet(tmp_path / "frame.parquet")
    both = {
        name: make_plan(
            tmp_path / "frame.parquet",
            CAMPAIGN.model_copy(update={"model": CAMPAIGN.model.model_copy(update={"name": name})}),
            {},
            TrainConfig(),
        ).recipe
        for name in ("direct_ranking", "s_learner")
    }
    kept = {name: recipe.rows_of(frame, 0)[0]["explored"] for name, recipe in both.items()}
    assert kept["direct_ranking"].all()
    assert not kept["s_learner"].all()
    assert fit_recipe(frame, CAMPAIGN).randomized is False


def test_a_net_knows_the_cost_outcome_in_its_own_unit():
    paid = CAMPAIGN.model_dump(mode="json", exclude_unset=True)
    paid["outcomes"]["reward_spend"] = {"kind": "continuous", "role": "cost"}
    campaign = type(CAMPAIGN).model_validate(paid)
    frame = decision_frame(world("game_bonus").log(4_000, seed=1), campaign, "log")
    recipe = fit_recipe(frame, campaign)
    assert recipe.shape.cost_outcome == 2
    assert recipe.shape.worth == (1.0, 2.0, 0.0)
    assert recipe.shape.cost_scale == recipe.scaler.scale[2] != 1.0


def test_worth_and_costs_are_one_each_or_left_out():
    shape = Shape(1, (), ((0,), (1,), (2,)), ("binary", "continuous"), cost_outcome=1)
    assert shape.values == (1.0, 0.0)
    assert shape.arm_costs == (0.0, 1.0, 1.0)
    with pytest.raises(CampaignError, match="one an outcome and one an arm"):
        Shape(1, (), ((0,), (1,)), ("binary",), worth=(1.0, 2.0))
    with pytest.raises(CampaignError, match="one an outcome and one an arm"):
        Shape(1, (), ((0,), (1,)), ("binary",), costs=(1.0,))


WORKER = """
import sys
import numpy as np
import torch
import torch.distributed as dist
from models.catalog import build
from models.data import Batch, Shape
from models.training import InMemoryBatches, TrainConfig, fit

name, rank, size, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
rng = np.random.default_rng(0)
x, arm = rng.normal(size=(301, 3)), rng.integers(0, 3, 301)
y = np.column_stack([rng.random(301) < 0.4, x[:, 0] + arm]).astype(float)
rows = Batch.of(x, rng.integers(0, 4, (301, 1)), arm, y, np.full(301, 1 / 3))
shape = Shape(3, (4,), ((0,), (1,), (2,)), ("binary", "continuous"), costs=(0.0, 0.2, 0.5))
net = build(name, shape, {"width": 8, "dropout": 0.0}, seed=0)
if size > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    net = torch.nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)
config = TrainConfig(epochs=3, batch_size=51, device="cpu")
result = fit(
    net,
    InMemoryBatches(rows, 51, 0, rank, size),
    lambda net: {"loss": float(net.loss(rows)["loss"])},
    config,
)
torch.save((result.best_state, result.history), f"{folder}/{size}-{rank}.pt")
if size > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETS, "duality_r_learner"])
def test_two_processes_rank_one_cohort(name, tmp_path):
    root = Path(__file__).resolve().parents[3]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, name, str(rank), str(size), str(tmp_path)], cwd=root
        )
        for rank, size in [(0, 1), (0, 2), (1, 2)]
    ]
    try:
        assert [run.wait(timeout=240) for run in runs] == [0, 0, 0]
    finally:
        for run in runs:
            run.kill()
    alone, first, second = (
        torch.load(tmp_path / f"{run}.pt", weights_only=True) for run in ("1-0", "2-0", "2-1")
    )
    for name, value in alone[0].items():
        assert torch.equal(first[0][name], second[0][name]), name
        torch.testing.assert_close(first[0][name], value, rtol=2e-3, atol=2e-5, msg=name)
    measured = [run[1][-1]["validation"]["loss"] for run in (alone, first, second)]
    assert measured[1:] == pytest.approx(measured[:1] * 2, rel=1e-3)
