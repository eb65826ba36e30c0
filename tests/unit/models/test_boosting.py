"""The boosted models, and the meta-learners' formulas on models that can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from models.catalog import build_learner
from models.data import Batch, Shape
from models.learners import boosting
from models.learners import problem as problems
from models.learners.base import Learner
from models.learners.boosting import (
    BoostConfig,
    EffectConfig,
    Sample,
    Trees,
    answer,
    boost,
    features,
    grid_of,
)
from models.learners.causal_forest import flat, local_effects
from models.learners.problem import arm_shares, make_problem, parts_of

QUICK = BoostConfig(learning_rate=0.15, trees=60)
TREES = Trees(BoostConfig(trees=200, patience=5), [], seed=0)
ONE_ARM = Shape(3, (), ((0,), (1,)), ("continuous",))
TWO_ARMS = Shape(3, (), ((0,), (1,), (2,)), ("continuous",))


def noisy(rows: int, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    return Sample(x, np.sin(x[:, 0]) + rng.normal(size=rows), np.ones(rows))


def logged(rows: int, seed: int, arms: int = 3, drift: float = 0.0) -> tuple[Batch, np.ndarray]:
    """Arms a and effects a * x_1; with drift, who gets which arm depends on x."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    push = np.exp(drift * x[:, :1] * np.arange(arms))
    shares = push / push.sum(axis=1, keepdims=True)
    arm = (rng.random((rows, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=arms - 1)
    y = 1.0 + x[:, 0] + arm * x[:, 1] + 0.5 * rng.normal(size=rows)
    given = shares[np.arange(rows), arm]
    return Batch.of(x, np.zeros((rows, 0), int), arm, y[:, None], given), shares


def asked(learner: Learner, x: np.ndarray) -> np.ndarray:
    return learner.potential_outcomes(x, np.zeros((len(x), 0), int))[..., 0]


# Boosting


def test_trees_after_the_best_are_taken_off():
    """The held-out error is the least of all stages, and the last patience trees are gone."""
    rows, held_out = noisy(1000, 1), noisy(500, 2)
    model = boost(rows, held_out, TREES)
    longer = boost(rows, held_out, replace(TREES, config=BoostConfig(trees=200, patience=200)))
    from sklearn.ensemble import HistGradientBoostingRegressor

    whole = HistGradientBoostingRegressor(
        **{**TREES.settings(stop=False), "max_iter": model.n_iter_ + 5}
    ).fit(rows.x, rows.y)
    errors = [np.mean((stage - held_out.y) ** 2) for stage in whole.staged_predict(held_out.x)]
    assert int(np.argmin(errors)) + 1 == model.n_iter_ < 100
    assert np.mean((answer(model, held_out.x) - held_out.y) ** 2) == pytest.approx(min(errors))
    assert longer.n_iter_ <= 200


def test_noise_is_answered_with_its_average():
    rng = np.random.default_rng(3)
    rows, held_out = (
        Sample(rng.normal(size=(n, 2)), rng.normal(size=n), rng.random(n)) for n in (400, 400)
    )
    config = EffectConfig(effect_rows=200)
    model = boost(rows, held_out, Trees(config, [], seed=0, effects=True))
    if isinstance(model, float):
        assert model == pytest.approx(np.average(rows.y, weights=rows.weight))
    assert np.abs(answer(model, held_out.x)).max() < 0.2


@pytest.mark.parametrize("rate", [False, True])
def test_rows_that_show_nothing_give_a_number(rate):
    x = np.zeros((9, 2))
    same = Sample(x, np.ones(9), np.ones(9))
    assert boost(same, same, TREES, rate=rate) == 1.0
    none = Sample(x, np.arange(9) % 2.0, np.zeros(9))
    assert boost(none, same, TREES, rate=rate) == pytest.approx(4 / 9)


@pytest.mark.parametrize("ids", [[], [1, 3]])
@pytest.mark.parametrize("kind", [{}, {"rate": True}, {"amount": True}])
def test_some_rows_are_answered_as_scikit_learn_answers_them(kind, ids):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(900, 4))
    x[:, [1, 3]] = rng.integers(1, 8, (900, 2))
    mean = 0.2 + 0.3 * (x[:, 0] > 0) + 0.3 * (x[:, 1] == 4)
    y = (
        (rng.random(900) < mean).astype(float)
        if "rate" in kind
        else mean * rng.exponential(size=900)
    )
    sample = Sample(x, y, np.ones(900))
    model = boost(sample, sample, Trees(BoostConfig(trees=30), ids, seed=0), **kind)
    asked = x[:200].copy()
    asked[:9, 1], asked[9:20, 3], asked[20:30, 0] = 0, 99, np.nan  # ids that no row had, and a gap
    public = model.predict_proba(asked)[:, 1] if "rate" in kind else model.predict(asked)
    assert np.ptp(public) > 0.1
    np.testing.assert_allclose(boosting.answer(model, asked), public, rtol=1e-12)


def test_rows_of_no_weight_have_no_part():
    rows, held_out = noisy(600, 1), noisy(300, 2)
    marred = Sample(
        np.concatenate([rows.x, rows.x[:50]]),
        np.concatenate([rows.y, np.full(50, 99.0)]),
        np.concatenate([rows.weight, np.zeros(50)]),
    )
    np.testing.assert_array_equal(
        answer(boost(marred, held_out, TREES), held_out.x),
        answer(boost(rows, held_out, TREES), held_out.x),
    )


def test_numbers_lie_on_a_grid_of_their_quantiles():
    rng = np.random.default_rng(1)
    few, many = rng.integers(0, 9, 5000), rng.exponential(size=5000)
    grid = grid_of(np.stack([few, many], axis=1))
    assert grid[0].tolist() == list(range(9))
    assert len(grid[1]) == 255
    x = features(np.stack([few, many], axis=1), np.zeros((5000, 0)), grid)
    np.testing.assert_array_equal(x[:, 0], few)
    distance = np.abs(grid[1] - many[:, None])
    np.testing.assert_allclose(np.abs(x[:, 1] - many), distance.min(axis=1))
    beyond = features(np.array([[-5.0, 1e9]]), np.zeros((1, 0)), grid)
    assert beyond.tolist() == [[0.0, many.max()]]


def test_rare_ids_join_the_missing_one():
    ids = np.array([[0, 3], [254, 1], [255, 2], [999, 4]])
    x = features(np.ones((4, 1), np.float32), ids, [np.ones(1)])
    assert x.tolist() == [[1, 0, 3], [1, 254, 1], [1, 0, 2], [1, 0, 4]]


# Nuisances


def test_units_are_dealt_whole_and_evenly():
    unit = np.repeat(np.arange(50) * 7 - 11, 3)
    part = parts_of(unit, 3, seed=1)
    assert all(len(set(part[unit == each])) == 1 for each in set(unit))
    assert sorted(np.bincount(part[::3]).tolist()) == [16, 17, 17]
    assert (parts_of(unit, 3, seed=1) == part).all()
    assert (parts_of(unit, 3, seed=2) != part).any()


def the_problem(rows: Batch, validation: Batch | None = None, **more: Any) -> problems.Problem:
    settings: dict[str, Any] = {
        "arms": 3, "binary": False, "grid": grid_of(rows.x_num.numpy()), "base": Trees(BoostConfig(), [], seed=0), "folds": 3,
        "seed": 0, "threads": 1, "say": lambda sentence: None,
    }  # fmt: skip
    return make_problem(rows, validation, 0, **{**settings, **more})


def test_a_uniform_trial_needs_no_model_of_its_arms():
    rows, _ = logged(900, 1)
    rows.weight[rows.arm == 2] = 2.0
    models, (shares, _) = the_problem(rows, rows).assignment()
    counts = np.bincount(rows.arm.numpy()) * [1, 1, 2]
    np.testing.assert_allclose(models[0], counts / counts.sum())
    assert (shares == models[0]).all()


def test_who_is_given_what_is_learned_where_it_depends_on_the_unit():
    rows, true = logged(3000, 1, drift=0.7)
    validation, true_there = logged(1000, 2, drift=0.7)
    models, (shares, held_out) = the_problem(
        rows, validation, base=Trees(QUICK, [], seed=0)
    ).assignment()
    assert len(models) == 3
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=0.02)
    error = np.sqrt(np.mean((shares - true) ** 2))
    assert error < 0.4 * np.sqrt(np.mean((true - true.mean(0)) ** 2))
    assert np.sqrt(np.mean((held_out - true_there) ** 2)) < error  # the mean of three


def test_no_row_is_answered_by_a_model_that_saw_it_or_its_unit(straight: list[Sample]):
    rows, _ = logged(300, 1)
    rows.unit = torch.arange(300) // 3
    whole = the_problem(rows, rows)
    models, (inside, outside) = whole.cross_fit("all", whole.given(0, 1, 2))
    for f, model in enumerate(models):
        mine = whole.fold == f
        np.testing.assert_array_equal(inside[mine], answer(model, whole.rows.x[mine]))
        seen = {tuple(x) for x in straight[f].x}
        assert not seen & {tuple(x) for x in whole.rows.x[mine]}
        assert not set(whole.rows.unit[mine]) & set(whole.rows.unit[~mine])
    np.testing.assert_allclose(outside, np.mean([answer(m, whole.held_out.x) for m in models], 0))


def test_without_validation_rows_some_units_are_set_aside():
    rows, _ = logged(1000, 1)
    rows.unit = torch.arange(1000) // 2
    whole = the_problem(rows)
    assert 0.1 < len(whole.held_out) / 1000 < 0.2
    assert len(whole.rows) + len(whole.held_out) == 1000
    assert not set(whole.rows.unit) & set(whole.held_out.unit)


# Formulas, with least squares in place of trees


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sample]]:
    """Every model is a weighted linear regression; gives what each was fit on."""
    fitted: list[Sample] = []

    def regress(rows: Sample, held_out: Sample, trees: Trees, **kind: bool) -> Any:
        fitted.append(rows)
        model = LinearRegression().fit(rows.x, rows.y, rows.weight)
        model.n_iter_ = 1
        return model

    monkeypatch.setattr(boosting, "boost", regress)
    return fitted


def line(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Weighted least squares with an intercept, by the normal equations; a function of x."""
    design = np.column_stack([np.ones(len(x)), x])
    weighted = design if weight is None else design * weight[:, None]
    beta = np.linalg.solve(weighted.T @ design, weighted.T @ y)
    return lambda at: np.column_stack([np.ones(len(at)), at]) @ beta


def case(arms: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, Batch]:
    batch, _ = logged(240, 4, arms)
    x, arm, y = (value.numpy().astype(float) for value in (batch.x_num, batch.arm, batch.y[:, 0]))
    return x, arm.astype(int), y, batch


@pytest.mark.parametrize("name", ["s_boost", "t_boost", "x_boost"])
def test_s_t_and_x_are_what_econml_computes(name, straight):
    from econml.metalearners import SLearner, TLearner, XLearner
    from sklearn.dummy import DummyClassifier

    x, arm, y, batch = case()
    peers = {
        "s_boost": lambda: SLearner(overall_model=LinearRegression()),
        "t_boost": lambda: TLearner(models=LinearRegression()),
        "x_boost": lambda: XLearner(
            models=LinearRegression(),
            propensity_model=DummyClassifier(strategy="prior"),
        ),
    }
    # EconML's S-learner gives its model an indicator a level; ours gives the level as one category.
    shape = Shape(3, (), ((0,), (1,), (2,)), ("continuous",))
    if name == "s_boost":
        keep = arm < 2
        x, arm, y, batch = (
            x[keep],
            arm[keep],
            y[keep],
            batch.select(torch.from_numpy(keep).nonzero()[:, 0]),
        )
        shape = ONE_ARM
    peer = peers[name]().fit(y, arm, X=x)
    outcomes = asked(
        build_learner(name, shape, {"bags": 1} if name == "s_boost" else {}).fit(
            batch, validation=batch
        ),
        x,
    )
    for treated in range(1, shape.arms):
        theirs = peer.effect(x, T0=0, T1=treated)
        np.testing.assert_allclose(outcomes[:, treated] - outcomes[:, 0], theirs, atol=1e-4)


def test_x_weighs_the_two_regressions_by_the_arms_shares(straight):
    x, arm, y, batch = case()
    outcomes = asked(build_learner("x_boost", TWO_ARMS).fit(batch, validation=batch), x)
    control = line(x[arm == 0], y[arm == 0])
    np.testing.assert_allclose(outcomes[:, 0], control(x), atol=1e-4)
    for a in (1, 2):
        treated = line(x[arm == a], y[arm == a])
        one = line(x[arm == a], y[arm == a] - control(x[arm == a]))
        zero = line(x[arm == 0], treated(x[arm == 0]) - y[arm == 0])
        g = (arm == a).sum() / ((arm == a).sum() + (arm == 0).sum())
        effect = g * zero(x) + (1 - g) * one(x)
        np.testing.assert_allclose(outcomes[:, a] - outcomes[:, 0], effect, atol=1e-4)


def test_r_is_a_regression_of_residuals_on_residuals(straight):
    """Nie & Wager, equation 4, solved directly: no division by small residuals."""
    x, arm, y, batch = case()
    outcomes = asked(build_learner("r_boost", TWO_ARMS).fit(batch, validation=batch), x)
    part = parts_of(np.arange(240), 3, seed=0)
    share = np.bincount(arm) / 240
    controls = []
    for a in (1, 2):
        pair = np.isin(arm, [0, a])
        lines = [line(x[pair & (part != f)], y[pair & (part != f)]) for f in range(3)]
        m = np.stack([each(x) for each in lines])
        e = share[a] / (share[0] + share[a])
        residual = (arm == a) - e
        design = np.column_stack([np.ones(240), x])[pair]
        moved = design * residual[pair][:, None]
        out = (y - m[part, np.arange(240)])[pair]
        effect = np.column_stack([np.ones(240), x]) @ np.linalg.lstsq(moved, out, rcond=None)[0]
        np.testing.assert_allclose(outcomes[:, a] - outcomes[:, 0], effect, atol=1e-4)
        controls.append((m.mean(0) - e * effect, pair.sum()))
    control = np.average([c for c, _ in controls], axis=0, weights=[n for _, n in controls])
    np.testing.assert_allclose(outcomes[:, 0], control, atol=1e-4)


@pytest.mark.parametrize("name", ["s_boost", "t_boost", "x_boost", "r_boost", "dr_boost"])
def test_a_weight_counts_like_repeated_rows(name, straight):
    batch, _ = logged(240, 4)
    batch.unit = torch.arange(240)
    double = torch.arange(240) % 3 == 0
    weighted = replace(batch, weight=1.0 + double.float())
    twice = batch.select(torch.cat([torch.arange(240), double.nonzero().squeeze(1)]))
    x = batch.x_num.numpy()
    one, two, other = (
        asked(build_learner(name, TWO_ARMS).fit(rows, validation=batch), x)
        for rows in (weighted, twice, batch)
    )
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_dr_regresses_doubly_robust_pseudo_outcomes(drift, straight):
    """Kennedy, equation 2, row by row."""
    batch, _ = logged(240, 4, drift=drift)
    x, arm, y = batch.x_num.numpy().astype(float), batch.arm.numpy(), batch.y[:, 0].numpy()
    config = {"trees": 10}
    outcomes = asked(build_learner("dr_boost", TWO_ARMS, config).fit(batch, validation=batch), x)
    part = parts_of(np.arange(240), 3, seed=0)
    _, (e, _) = the_problem(
        batch, batch, base=Trees(BoostConfig(**config), [], seed=0)
    ).assignment()
    fits = {
        (a, f): line(x[(arm == a) & (part != f)], y[(arm == a) & (part != f)])
        for a in range(3)
        for f in range(3)
    }
    gamma = np.empty((240, 3))
    for i in range(240):
        for a in range(3):
            mu = fits[a, part[i]](x[i : i + 1])[0]
            gamma[i, a] = mu + (arm[i] == a) / e[i, a] * (y[i] - mu)
    for a in (1, 2):
        effect = line(x, gamma[:, a] - gamma[:, 0])(x)
        np.testing.assert_allclose(outcomes[:, a] - outcomes[:, 0], effect, atol=1e-3)
    control = np.mean([fits[0, f](x) for f in range(3)], axis=0)
    np.testing.assert_allclose(outcomes[:, 0], control, atol=1e-4)


def test_a_forest_as_arrays_answers_as_econml_does():
    from econml.grf import CausalForest

    rng = np.random.default_rng(5)
    x, arm = rng.normal(size=(600, 4)), rng.integers(0, 3, 600)
    treated = np.eye(3)[arm][:, 1:] - 1 / 3
    y = x[:, 0] * (arm == 1) + rng.normal(size=600)
    forest = CausalForest(20, min_samples_leaf=5, inference=False, n_jobs=1, random_state=0)
    forest.fit(x, treated, y, sample_weight=rng.random(600))
    ours = local_effects(flat([tree.tree_.__getstate__() for tree in forest]), x, 2)
    np.testing.assert_allclose(ours, forest.predict(x), rtol=1e-8, atol=1e-10)


def test_the_forest_is_near_causalforestdml():
    from econml.dml import CausalForestDML
    from sklearn.dummy import DummyClassifier

    batch, _ = logged(2000, 6)
    x, arm, y = batch.x_num.numpy(), batch.arm.numpy(), batch.y[:, 0].numpy()
    config = {"forest": 40, "effect_rows": 10, "trees": 60, "learning_rate": 0.1}
    ours = asked(build_learner("causal_forest", TWO_ARMS, config).fit(batch, validation=batch), x)
    peer = CausalForestDML(
        model_y=LinearRegression(),
        model_t=DummyClassifier(strategy="prior"),
        discrete_treatment=True,
        n_estimators=40,
        min_samples_leaf=10,
        inference=False,
        n_jobs=1,
        random_state=0,
    ).fit(y, arm, X=x)
    for a in (1, 2):
        theirs = peer.effect(x, T0=0, T1=a)
        true = a * x[:, 1]
        error, their_error = (
            np.sqrt(np.mean((tau - true) ** 2)) for tau in (ours[:, a] - ours[:, 0], theirs)
        )
        assert error < 1.15 * their_error


@pytest.mark.parametrize("name", ["x_boost", "r_boost", "dr_boost", "causal_forest"])
def test_effects_stand_where_a_policy_chose_the_arms(name):
    """Who gets an arm depends on what moves the outcome: naive means are far off."""
    batch, _ = logged(3000, 7, arms=2, drift=1.0)
    x, arm, y = batch.x_num.numpy(), batch.arm.numpy(), batch.y[:, 0].numpy()
    config = {"learning_rate": 0.15, "trees": 60} | ({"forest": 40} if "forest" in name else {})
    outcomes = asked(build_learner(name, ONE_ARM, config).fit(batch), x)
    assert abs(y[arm == 1].mean() - y[arm == 0].mean()) > 0.5  # the true mean effect is 0
    assert abs((outcomes[:, 1] - outcomes[:, 0]).mean()) < 0.15


def test_no_arm_is_less_likely_than_the_floor():
    shares = arm_shares([np.array([0.999, 0.001])], np.zeros((4, 1)), 2)
    assert shares.tolist() == [[0.999, 0.01]] * 4
