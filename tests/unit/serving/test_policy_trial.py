"""The trial: random, balanced, within its budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from campaigns.arms import ArmTable
from campaigns.errors import DataError
from serving.policy.exploration import explore, held_out
from serving.policy.trial import sample_trial

ARMS = ArmTable(
    names=("none", "coins", "skin"),
    factors=("bonus",),
    level_names=(("none",), ("coins",), ("skin",)),
    levels=np.array([[0], [1], [2]]),
    costs=np.array([0.0, 0.3, 0.6]),
)
UNITS = [f"u{i}" for i in range(6000)]


def sample(units=UNITS, **given):
    if "size" not in given:
        given.setdefault("epsilon", 0.1)
    return sample_trial(units, ARMS, **{"budget": np.inf, "epoch": "e1", "salt": "s"} | given)


def test_a_trial_is_balanced_and_uniform():
    found = sample()
    assert found.asked == found.got == len(found.arm)
    assert found.share_got == pytest.approx(0.1, abs=0.02)
    assert np.ptp(found.counts) <= 1
    assert (found.explored_propensity == 1 / 3).all()
    assert found.spend == pytest.approx(ARMS.costs[found.arm].sum())
    assert found.expected_spend == pytest.approx(0.3 * found.got)
    assert [UNITS[i] for i in found.row] == found.unit_id.tolist()
    assert (np.diff(found.row) > 0).all()


def test_every_unit_gets_every_arm_equally_often_over_epochs():
    few, tally = UNITS[:10], np.zeros((10, 3))  # 10 = 3 blocks and a part of one
    for epoch in range(1500):
        found = sample(few, epsilon=1.0, epoch=epoch)
        tally[found.row, found.arm] += 1
    assert chisquare(tally.ravel()).pvalue > 1e-4


def test_those_who_join_are_those_whom_exploration_would_draw():
    found = sample(holdout=0.05)
    online = explore(
        np.zeros(6000, dtype=int), np.ones((6000, 3), bool), 0.1, UNITS, "e1", "s", 0.05
    )
    np.testing.assert_array_equal(found.row, np.flatnonzero(online.explored))


@settings(max_examples=60, deadline=None)
@given(
    budget=st.floats(0, 60),
    size=st.integers(0, 250),
    strata=st.integers(1, 40),
    closed=st.floats(0, 1),
    epoch=st.integers(0, 1000),
)
def test_the_budget_is_kept(budget, size, strata, closed, epoch):
    rng = np.random.default_rng(epoch)
    eligible = rng.random((200, 3)) > closed
    found = sample(
        UNITS[:200],
        budget=budget,
        size=size,
        strata=rng.integers(0, strata, 200),
        eligible=eligible,
        epoch=epoch,
        holdout=0.1,
    )
    eligible[:, 0] = True
    assert found.spend <= budget
    assert ARMS.costs[found.arm].sum() <= budget + 1e-9
    assert found.expected_spend <= budget
    assert found.got <= min(size, found.candidates)
    assert eligible[found.row, found.arm].all()
    np.testing.assert_allclose(found.explored_propensity, 1 / eligible[found.row].sum(axis=1))
    assert not held_out(found.unit_id, salt="s", holdout=0.1).any()


def test_a_short_budget_shrinks_the_trial_and_says_so():
    found = sample(budget=60.0, size=1000)
    assert (found.asked, found.got) == (1000, 199)  # 66 blocks at 0.9, and 0.6
    assert (found.share_asked, found.share_got) == (1000 / 6000, 199 / 6000)
    assert 59 < found.spend <= 60
    # the smaller trial is a part of the larger
    assert set(found.row) <= set(sample(size=1000).row)


def test_whether_a_unit_joins_does_not_depend_on_its_arm():
    dear = np.zeros(3)
    for epoch in range(400):
        dear += sample(UNITS[:300], budget=7.0, size=200, epoch=epoch).counts
    assert chisquare(dear).pvalue > 1e-4


def test_arms_are_balanced_within_strata():
    strata = np.array(["ios", "android", "web"], dtype=object)[np.arange(6000) ** 2 % 7 % 3]
    found = sample(strata=strata, size=901)
    assert found.got == 901
    for name in ("ios", "android", "web"):
        within = np.bincount(found.arm[found.stratum == name], minlength=3)
        assert within.sum() > 100
        assert np.ptp(within) <= 1


def test_units_that_can_only_get_control_take_no_part():
    eligible = np.ones((6000, 3), dtype=bool)
    eligible[:3000, 1:] = False
    eligible[3000:4500, 2] = False
    found = sample(eligible=eligible, epsilon=1.0)
    assert found.candidates == found.got == 3000
    assert np.bincount(found.arm[found.row < 4500], minlength=3).tolist() == [750, 750, 0]
    assert np.bincount(found.arm[found.row >= 4500], minlength=3).tolist() == [500, 500, 500]


def test_it_can_be_drawn_again_in_any_order_of_rows():
    order = np.random.default_rng(0).permutation(6000)
    strata = np.arange(6000) % 5
    one = sample(budget=50.0, strata=strata)
    two = sample([UNITS[i] for i in order], budget=50.0, strata=strata[order])
    assert dict(zip(one.unit_id, one.arm)) == dict(zip(two.unit_id, two.arm))
    next_epoch = sample(epoch="e2")
    assert set(next_epoch.unit_id) != set(sample().unit_id)


def test_columns_make_a_table():
    table = sample(size=30, strata=np.arange(6000) % 2).columns()
    assert list(table) == ["unit_id", "arm", "arm_name", "explored_propensity", "epoch", "stratum"]
    assert {len(column) for column in table.values()} == {30}
    assert set(table["arm_name"]) == set(ARMS.names)


@pytest.mark.parametrize("given", [{"size": 0}, {"budget": 0.0}, {"units": []}, {"holdout": 1.0}])
def test_an_empty_trial_is_a_trial(given):
    found = sample(**given)
    assert (found.got, found.spend, found.counts.tolist()) == (0, 0.0, [0, 0, 0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"units": ["a", "b", "a"]}, "unit 'a' 2 times"),
        ({"size": 3, "epsilon": 0.1}, "either epsilon or size"),
        ({"epsilon": None}, "either epsilon or size"),
        ({"epsilon": 2.0}, "epsilon must be a number from 0 to 1"),
        ({"size": -1}, "size must be a whole number"),
        ({"budget": float("nan")}, "budget must be"),
        ({"strata": [1, 2]}, "strata has 2 entries for 6000 units"),
        ({"eligible": np.ones((2, 3), dtype=bool)}, "eligible must be boolean with the shape"),
    ],
)
def test_bad_input_is_named(change, says):
    with pytest.raises(DataError, match=says):
        sample(**change)
