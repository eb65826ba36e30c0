"""Epsilon schedules: the formula, the floor, and equal exploration over the cycles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from serving.policy.schedules import by_cycle, constant, decaying, water_fill, with_mean


def test_the_formulas_to_the_digit():
    assert [constant(0.05)(t) for t in (1, 2, 99)] == [0.05, 0.05, 0.05]
    halving = decaying(0.4, floor=0.05, half=2)
    assert [halving(t) for t in (1, 3, 5, 7, 100)] == pytest.approx([0.4, 0.2, 0.4 / 3, 0.1, 0.05])
    assert [by_cycle([1.0, 0.1, 0.02])(t) for t in (1, 2, 3, 4)] == [1.0, 0.1, 0.02, 0.02]


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 50), st.integers(1, 200))
def test_a_decay_never_rises_nor_leaves_its_bounds(start, share, half, cycle):
    falling = decaying(start, floor=share * start, half=half)
    now, then = falling(cycle), falling(cycle + 1)
    assert share * start <= then <= now <= start


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(0.2, 30), st.integers(1, 40))
def test_schedules_are_made_to_explore_equally(mean, start, half, cycles):
    scaled = with_mean(decaying(start, floor=0.1 * start, half=half), mean, cycles=cycles)
    rates = [scaled(t) for t in range(1, cycles + 1)]
    assert np.mean(rates) == pytest.approx(mean, abs=1e-9)
    assert max(rates) <= 1
    assert (np.diff(rates) <= 0).all()
    assert scaled(cycles + 5) == rates[-1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 2)), min_size=1, max_size=12),
    st.floats(0, 20),
)
def test_water_is_level_and_all_of_it_there(units, total):
    weight, room = np.array(units).T
    weight = np.where(weight < 1e-3, 0.0, weight)
    found = water_fill(weight, room, total)
    assert (found <= room * (1 + 1e-12)).all()
    assert (found[weight == 0] == 0).all()
    assert found.sum() == pytest.approx(min(total, room[weight > 0].sum()), abs=1e-9)
    free = (found < room * (1 - 1e-9)) & (weight > 0)
    if free.any():
        np.testing.assert_allclose((found[free] / weight[free]), (found[free] / weight[free])[0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: constant(1.2), r"epsilons\[0\] must be a number from 0 to 1, not 1.2"),
        (lambda: by_cycle([]), "epsilons is empty"),
        (lambda: decaying(0.1, floor=0.2, half=3), "floor is 0.2, above the start, 0.1"),
        (lambda: decaying(0.1, floor=0.0, half=0), "half must be a number of cycles above 0"),
        (lambda: constant(0.1)(0), "A cycle must be a whole number from 1, not 0"),
        (lambda: with_mean(by_cycle([0.1, 0.0]), 0.7, cycles=2), "explores in 1 of 2 cycles"),
    ],
)
def test_bad_schedules_are_named(make, says):
    with pytest.raises(DataError, match=says):
        make()
