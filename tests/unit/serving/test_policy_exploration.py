"""Exploration: the propensities that it reports are true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from campaigns.errors import DataError
from serving.policy.exploration import explore, full_propensities, held_out

N = 30_000
UNITS = [f"u{i}" for i in range(N)]
EVERY = np.ones((N, 3), dtype=bool)


def draw(greedy=None, eligible=EVERY, epsilon=0.3, epoch="e1", salt="s", holdout=0.0, units=UNITS):
    greedy = np.full(len(units), 1) if greedy is None else greedy
    return explore(greedy, eligible, epsilon, units, epoch, salt, holdout)


def test_frequencies_match_the_propensities():
    some = EVERY.copy()
    some[: N // 2, 2] = False
    found = draw(eligible=some)
    expected = full_propensities(np.ones(N, dtype=int), some, 0.3)
    for part in (slice(0, N // 2), slice(N // 2, N)):
        counts = np.bincount(found.arm[part], minlength=3)
        chances = expected[part][0]
        assert counts[chances == 0].sum() == 0
        keep = chances > 0
        assert chisquare(counts[keep], chances[keep] * N / 2).pvalue > 1e-4
    np.testing.assert_allclose(found.propensity, expected[np.arange(N), found.arm])
    # inverse propensities estimate an arm's share of an outcome without bias
    assert (np.sum((found.arm == 0) / found.propensity) / N) == pytest.approx(1, abs=0.05)


def test_the_formula_to_the_digit():
    found = draw()
    greedy = found.arm == 1
    assert np.unique(found.propensity[greedy]) == pytest.approx([0.3 / 3 + 0.7], abs=1e-15)
    assert np.unique(found.propensity[~greedy]) == pytest.approx([0.1], abs=1e-15)


def test_explored_means_that_the_coin_came_up():
    found = draw()
    assert found.explored.mean() == pytest.approx(0.3, abs=0.01)
    assert (found.arm[~found.explored] == 1).all()
    counts = np.bincount(found.arm[found.explored], minlength=3)  # the greedy arm among them
    assert chisquare(counts).pvalue > 1e-4
    assert (found.explored_propensity[found.explored] == 1 / 3).all()
    assert np.isnan(found.explored_propensity[~found.explored]).all()


def test_draws_stick_within_an_epoch_and_can_be_derived_again():
    one = draw(holdout=0.1)
    order = np.random.default_rng(0).permutation(N)[:1000]
    again = draw(eligible=EVERY[:1000], holdout=0.1, units=[UNITS[i] for i in order])
    for field in ("arm", "propensity", "explored", "holdout"):
        np.testing.assert_array_equal(getattr(again, field), getattr(one, field)[order])
    # a new greedy arm changes nobody who explores
    other = draw(greedy=np.zeros(N, dtype=int), holdout=0.1)
    np.testing.assert_array_equal(other.explored, one.explored)
    np.testing.assert_array_equal(other.arm[one.explored], one.arm[one.explored])
    # a smaller epsilon keeps a part of them
    fewer = draw(epsilon=0.1, holdout=0.1)
    assert not (fewer.explored & ~one.explored).any()


def test_the_next_epoch_draws_anew_but_holds_out_the_same():
    one, two = draw(holdout=0.1), draw(holdout=0.1, epoch="e2")
    np.testing.assert_array_equal(one.holdout, two.holdout)
    assert one.holdout.mean() == pytest.approx(0.1, abs=0.01)
    assert two.explored[one.explored].mean() == pytest.approx(0.3, abs=0.02)
    wider = held_out(UNITS, salt="s", holdout=0.2)
    assert wider[one.holdout].all()


def test_holdout_units_always_get_control():
    found = draw(holdout=0.2, epsilon=1.0)
    held = found.holdout
    assert (found.arm[held] == 0).all()
    assert (found.propensity[held] == 1).all()
    assert not found.explored[held].any()
    assert np.isnan(found.explored_propensity[held]).all()
    assert found.explored[~held].all()


@pytest.mark.parametrize(("epsilon", "explored"), [(0.0, 0), (1.0, N)])
def test_all_or_nothing(epsilon, explored):
    found = draw(epsilon=epsilon)
    assert found.explored.sum() == explored
    assert (found.propensity > 0).all()


def test_epsilon_may_differ_by_unit():
    rate = np.where(np.arange(N) < N // 2, 0.5, 0.01)
    found = draw(epsilon=rate)
    assert found.explored[: N // 2].mean() == pytest.approx(0.5, abs=0.02)
    assert found.explored[N // 2 :].mean() == pytest.approx(0.01, abs=0.005)
    np.testing.assert_allclose(found.propensity[found.arm == 2], rate[found.arm == 2] / 3)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.floats(0, 1), st.data())
def test_full_propensities_sum_to_one(arms, epsilon, data):
    eligible = np.array(
        data.draw(
            st.lists(st.lists(st.booleans(), min_size=arms, max_size=arms), min_size=1, max_size=8)
        )
    )
    greedy = np.array(
        [data.draw(st.sampled_from([0, *np.flatnonzero(row).tolist()])) for row in eligible]
    )
    holdout = np.arange(len(greedy)) % 3 == 0
    full = full_propensities(greedy, eligible, epsilon, holdout)
    np.testing.assert_allclose(full.sum(axis=1), 1)
    assert (full[holdout, 0] == 1).all()
    eligible[:, 0] = True
    assert (full[~eligible] == 0).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epsilon": 1.1}, "epsilon must be from 0 to 1"),
        ({"epsilon": float("nan")}, "epsilon must be finite"),
        ({"epsilon": np.zeros(3)}, "one for each of the 2 units"),
        ({"holdout": -0.1}, "holdout must be a number from 0 to 1"),
        ({"greedy": [0, 5]}, "greedy_arm must be from 0 to 1, but holds 5"),
        ({"greedy": [0, 1], "eligible": [[True, True], [True, False]]}, r"greedy_arm\[1\] is 1"),
        ({"eligible": [True, True]}, "eligible must have the shape"),
        ({"units": ["a"], "greedy": [0, 0]}, "units has 1 entries for 2 units"),
    ],
)
def test_bad_input_is_named(change, says):
    good = {"greedy": [0, 1], "eligible": np.ones((2, 2), dtype=bool), "units": ["a", "b"]}
    with pytest.raises(DataError, match=says):
        draw(**good | change)
