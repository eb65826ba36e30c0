"""The S-learner of trees: steps of a chain, amounts that are often nothing, and bags."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.catalog import build_learner
from models.data import Batch, Shape
from models.learners import s_boost
from models.learners.problem import Rows

ONE_ARM = ((0,), (1,))
QUICK = {"trees": 80, "learning_rate": 0.1, "bags": 1}


def chained(count: int, seed: int) -> tuple[Batch, np.ndarray]:
    """Visits by x0, which the arm leaves alone; half of the visitors buy, more if treated and x1 > 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    arm = rng.integers(2, size=count)
    visit = 1 / (1 + np.exp(1.5 - 2 * x[:, 0]))
    effect = 0.3 * (x[:, 1] > 0)
    one = rng.random((2, count))
    came = one[0] < visit
    bought = came & (one[1] < 0.3 + effect * arm)
    y = np.column_stack([came, bought]).astype(float)
    return Batch.of(x, np.zeros((count, 0), np.int64), arm, y), visit * effect


def asked(learner, rows: Batch) -> np.ndarray:
    return learner.potential_outcomes(rows.x_num.numpy(), rows.x_cat.numpy())


def test_steps_of_a_chain_are_learned_among_those_who_took_the_one_before() -> None:
    (train, _), (held_out, _), (test, truth) = (chained(4000, seed) for seed in (1, 2, 3))
    errors = {}
    for sequence in ((0, 1), ()):
        shape = Shape(3, (), ONE_ARM, ("binary", "binary"), sequence=sequence)
        outcomes = asked(
            build_learner("s_boost", shape, QUICK).fit(train, validation=held_out), test
        )
        errors[sequence] = np.sqrt(np.mean((outcomes[:, 1, 1] - outcomes[:, 0, 1] - truth) ** 2))
        if sequence:
            assert (outcomes[..., 1] <= outcomes[..., 0]).all()  # nobody buys without a visit
    assert errors[0, 1] < errors[()]
    assert errors[0, 1] < 0.6 * np.sqrt(np.mean(truth**2))


def test_a_step_that_too_few_reach_is_learned_from_everybody() -> None:
    rows, _ = chained(300, 1)
    rare = rows.y.clone()
    rare[:, 0] = (torch.arange(300) < 20).float()
    rare[:, 1] *= rare[:, 0]
    rows.y.copy_(rare)
    shape = Shape(3, (), ONE_ARM, ("binary", "binary"), sequence=(0, 1))
    learner = build_learner("s_boost", shape, QUICK).fit(rows)
    assert learner.steps == (0,)
    assert np.isfinite(asked(learner, rows)).all()


def amounts(count: int, seed: int) -> tuple[Batch, np.ndarray]:
    """Half spend nothing; who spends does so with a long tail, and more if treated and x1 > 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    arm = rng.integers(2, size=count)
    mean = np.exp(0.8 * x[:, 0])
    some = rng.random(count) < 0.5
    spent = some * mean * (1 + 0.8 * arm * (x[:, 1] > 0)) * np.exp(rng.normal(size=count) - 0.5)
    truth = 0.5 * mean * 0.8 * (x[:, 1] > 0)
    return Batch.of(x, np.zeros((count, 0), np.int64), arm, 2 * spent[:, None] - 1), 2 * truth


def test_amounts_that_are_often_nothing_are_learned_through_their_noise() -> None:
    (train, _), (held_out, _), (test, truth) = (amounts(6000, seed) for seed in (1, 2, 3))
    shape = Shape(3, (), ONE_ARM, ("continuous",))
    learner = build_learner("s_boost", shape, QUICK).fit(train, validation=held_out)
    outcomes = asked(learner, test)
    assert learner.models[0]["least"] == pytest.approx(-1.0)
    assert (outcomes >= -1.0).all()
    effect = outcomes[:, 1, 0] - outcomes[:, 0, 0]
    assert np.sqrt(np.mean((effect - truth) ** 2)) < 0.75 * np.sqrt(np.mean(truth**2))
    assert effect.mean() == pytest.approx(truth.mean(), rel=0.4)


def test_bags_answer_with_their_mean_and_differ() -> None:
    (train, _), (held_out, _) = chained(1500, 1), chained(1500, 2)
    shape = Shape(3, (), ONE_ARM, ("binary", "binary"), sequence=(0, 1))
    learner = build_learner("s_boost", shape, QUICK | {"bags": 3}).fit(train, validation=held_out)
    x = held_out.x_num.numpy(), held_out.x_cat.numpy()
    members = learner.member_outcomes(*x)
    assert members.shape == (3, 1500, 2, 2)
    np.testing.assert_allclose(members.mean(0), learner.potential_outcomes(*x), atol=1e-5)
    assert members.std(0)[..., 1].mean() > 1e-3
    single = build_learner("s_boost", shape, QUICK).fit(train, validation=held_out)
    assert single.member_outcomes(*x) is None


def test_bags_learn_from_every_unit_and_each_stops_by_others() -> None:
    """Units are whole, each bag sets a fifth aside, and five bags set each unit aside once."""
    rng = np.random.default_rng(6)
    unit = rng.integers(0, 400, 1000)
    rows, held_out = make_rows(unit[:700]), make_rows(unit[700:])
    aside = []
    for learn, stop in s_boost._bags(rows, held_out, 7, seed=3):
        assert len(learn) + len(stop) == 1000
        assert not set(learn.unit) & set(stop.unit)
        aside.append(set(stop.unit))
    assert sum(map(len, aside[:5])) == len(set.union(*aside[:5])) == len(set(unit))
    assert aside[5] not in aside[:5]  # dealt anew
    assert list(s_boost._bags(rows, held_out, 1, seed=3)) == [(rows, held_out)]


def test_the_spread_of_bags_is_that_of_samples_of_units() -> None:
    """A mean stands for a learner: of other fifths left out, SPREAD times as far apart is right."""
    rng = np.random.default_rng(7)
    logs = rng.normal(size=(400, 500))
    found = []
    for log in logs:
        part = s_boost.parts_of(np.arange(500), s_boost.PARTS, seed=0)
        means = [log[part != each].mean() for each in range(s_boost.PARTS)]
        found.append(s_boost.SPREAD**2 * np.var(means, ddof=1))
    assert np.mean(found) == pytest.approx(logs.mean(1).var(), rel=0.15)


def make_rows(unit: np.ndarray) -> Rows:
    """Rows of which only the units matter."""
    some = np.arange(len(unit), dtype=np.float64)
    return Rows(some[:, None], unit, some, some, some, unit)
