"""Many units under every arm: what scikit-learn answers for each unit and arm, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from models.learners.boosting import BoostConfig, Model, Sample, Trees, boost, grid_of
from models.learners.every_arm import ROWS, EveryArm, _small
from models.learners.some_rows import SOME_ROWS

LEVELS = np.array([[0, 0], [1, 0], [0, 2], [1, 2], [5, 1]])  # the last has a level that no row had


def make_units(count: int, seed: int) -> np.ndarray:
    """Two numbers, one of few values, and two ids, [N, 4]."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, [7, 250], (count, 2))
    return np.column_stack([rng.normal(size=count).round(2), rng.integers(0, 3, count), ids])


def fitted(leaves: int, kind: dict[str, bool]) -> tuple[Model, list[np.ndarray]]:
    """A model of outcomes that depend on the arm and on everything else, and the grid of its numbers."""
    rng = np.random.default_rng(leaves)
    x, arm = make_units(4_000, 1), rng.integers(0, 4, 4_000)
    grid = grid_of(x[:, :2])
    x = on(grid, x)
    levels = LEVELS[arm]
    wave = np.sin(3 * x[:, 0]) * (levels[:, 0] + 0.5) + (x[:, 2] % 3) * levels[:, 1] + x[:, 3] / 99
    mean = 0.1 + 0.8 / (1 + np.exp(-wave + 2))
    y = rng.random(4_000) < mean if "rate" in kind else mean * rng.exponential(size=4_000)
    sample = Sample(np.column_stack([x, levels]), y.astype(float), rng.exponential(size=4_000))
    config = BoostConfig(trees=20, leaves=leaves, leaf_rows=5)
    return boost(sample, sample, Trees(config, [2, 3, 4, 5], seed=0), **kind), grid


def on(grid: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The units with their numbers moved to the grid."""
    x = x.copy()
    for column, values in enumerate(grid):
        x[:, column] = values[np.searchsorted(values, x[:, column]).clip(0, len(values) - 1)]
    return x


def public(model: Model, units: np.ndarray) -> np.ndarray:
    """By scikit-learn's own methods, an arm at a time, [N, A]."""
    arms = []
    for level in LEVELS:
        table = np.column_stack([units, np.tile(level, (len(units), 1))])
        rate = hasattr(model, "predict_proba")
        arms.append(model.predict_proba(table)[:, 1] if rate else model.predict(table))
    return np.stack(arms, axis=1)


@pytest.mark.parametrize("kind", [{}, {"rate": True}, {"amount": True}])
@pytest.mark.parametrize("leaves", [2, 15, 31])
def test_many_units_are_answered_as_scikit_learn_answers_each(leaves, kind):
    model, grid = fitted(leaves, kind)
    units = on(grid, make_units(ROWS + 700, 2))
    units[:50, 2], units[50:90, 3] = 99, 254  # ids that no row had
    assert _small(model)
    expected = public(model, units)
    assert np.ptp(expected, axis=1).max() > 0.005  # arms differ
    assert np.ptp(expected, axis=0).max() > 0.005  # and units
    np.testing.assert_array_equal(EveryArm(units, grid, LEVELS).answer(model), expected)


def test_trees_of_many_leaves_and_averages_are_answered_too():
    model, grid = fitted(60, {})
    units = on(grid, make_units(SOME_ROWS + 1, 3))
    asked = EveryArm(units, grid, LEVELS)
    assert not _small(model)
    np.testing.assert_array_equal(asked.answer(model), public(model, units))
    np.testing.assert_array_equal(asked.answer(0.25), np.full((len(units), 5), 0.25))


def test_few_units_are_answered_as_many_are():
    model, grid = fitted(15, {"rate": True})
    units = on(grid, make_units(SOME_ROWS + 300, 4))
    many = EveryArm(units, grid, LEVELS).answer(model)
    few = EveryArm(units[:200], grid, LEVELS).answer(model)
    np.testing.assert_allclose(few, many[:200], rtol=1e-12)
    assert EveryArm(units[:0], grid, LEVELS).answer(model).shape == (0, 5)
