"""Allocation: within the budget, near the best, and the same whatever the order of the rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import Bounds, LinearConstraint, milp

from campaigns.errors import DataError
from serving.policy.allocation import allocate, decide

GRID = st.integers(-4, 12).map(lambda i: i / 4)  # a coarse grid makes ties and rounding common


@st.composite
def problems(draw, most_units=5, per_unit=None):
    units, arms = draw(st.integers(1, most_units)), draw(st.integers(1, 4))
    value = draw(hnp.arrays(np.float64, (units, arms), elements=GRID))
    value[:, 0] = 0
    by_unit = draw(st.booleans()) if per_unit is None else per_unit
    cost = draw(
        hnp.arrays(
            np.float64,
            (units, arms) if by_unit else (arms,),
            elements=st.integers(0, 8).map(lambda i: i / 10),
        )
    )
    cost[..., 0] = 0
    eligible = draw(hnp.arrays(np.bool_, (units, arms)))
    eligible[:, 0] = True
    return (
        value,
        cost,
        eligible,
        draw(st.integers(0, 30).map(lambda i: i / 10)),
        draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


def totals(value, cost, arm, min_return=0.0):
    rows = np.arange(len(arm))
    spent = np.broadcast_to(cost, value.shape)[rows, arm].sum()
    return value[rows, arm].sum() - min_return * spent, spent


def best_by_hand(value, cost, eligible, budget, min_return):
    cost = np.broadcast_to(cost, value.shape)
    best = 0.0
    for arm in itertools.product(*[np.flatnonzero(row) for row in eligible]):
        arm = np.array(arm)
        worth, spent = totals(value, cost, arm, min_return)
        if spent <= budget + 1e-9:
            best = max(best, worth)
    return best


def bonus_world(units, arms=3, seed=0):
    rng = np.random.default_rng(seed)
    value = np.zeros((units, arms))
    value[:, 1:] = rng.normal(0.2, 0.4, (units, arms - 1))
    return value, np.r_[0, np.linspace(0.3, 0.55, arms - 1)]


@settings(max_examples=150, deadline=None)
@given(problems())
def test_keeps_to_the_budget_and_brackets_the_best(problem):
    value, cost, eligible, budget, min_return = problem
    found = allocate(value, cost, budget, min_return=min_return, eligible=eligible)
    worth, spent = totals(value, cost, found.arm, min_return)
    assert spent <= budget * (1 + 1e-9)
    assert found.cost <= budget
    assert found.cost == pytest.approx(spent)
    assert found.value == pytest.approx(worth)
    assert eligible[np.arange(len(value)), found.arm].all()
    best = best_by_hand(value, cost, eligible, budget, min_return)
    assert found.value <= best + 1e-9
    assert best <= found.upper_bound + 1e-9
    assert found.price >= min_return
    assert 0 <= found.gap <= 1


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 30))
def test_value_never_falls_when_the_budget_grows(problem, more):
    value, cost, eligible, budget, min_return = problem
    small = allocate(value, cost, budget, min_return=min_return, eligible=eligible)
    large = allocate(value, cost, budget + more / 10, min_return=min_return, eligible=eligible)
    assert large.value >= small.value - 1e-9
    assert large.upper_bound >= small.upper_bound - 1e-9
    assert large.price <= small.price + 1e-9


@settings(max_examples=100, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_order_of_rows_is_irrelevant(problem, random):
    value, cost, eligible, budget, min_return = problem
    order = np.array(random.sample(range(len(value)), len(value)))
    there = cost[order] if cost.ndim == 2 else cost
    one = allocate(value, cost, budget, min_return=min_return, eligible=eligible)
    other = allocate(value[order], there, budget, min_return=min_return, eligible=eligible[order])
    assert other.price == pytest.approx(one.price)
    assert other.value == pytest.approx(one.value)
    assert other.cost == pytest.approx(one.cost)


def test_equals_an_exact_solver_within_its_gap():
    for seed in range(5):
        value, cost = bonus_world(60, arms=4, seed=seed)
        unit_of = np.kron(np.eye(60), np.ones(4))
        exact = milp(
            -value.ravel(),
            integrality=np.ones(value.size),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(unit_of, 1, 1),
                LinearConstraint(np.tile(cost, 60)[None], ub=6.0),
            ],
            options={"mip_rel_gap": 0.0},
        )
        found = allocate(value, cost, 6.0)
        assert found.value <= -exact.fun + 1e-9 <= found.upper_bound + 2e-9
        assert found.gap < 0.02


def test_without_ties_rows_get_the_same_arm_in_any_order():
    value, cost = bonus_world(5000)
    order = np.random.default_rng(1).permutation(5000)
    one, other = allocate(value, cost, 300.0), allocate(value[order], cost, 300.0)
    np.testing.assert_array_equal(other.arm, one.arm[order])


@pytest.mark.parametrize("per_unit", [False, True])
def test_the_gap_is_tiny_at_scale(per_unit):
    value, cost = bonus_world(100_000, arms=4)
    if per_unit:
        cost = np.random.default_rng(1).uniform(0, 1, value.shape)
        cost[:, 0] = 0
    for budget in (10.0, 1000.0, 10_000.0):
        found = allocate(value, cost, budget)
        assert found.gap < (1e-4 if budget >= 1000 else 2e-2)  # 20 units: one step counts
        assert 0.9999 * budget < found.cost <= budget or budget == 10.0


def test_units_that_all_tie_share_the_budget():
    value = np.tile([0.0, 0.2, 0.3], (10_000, 1))
    found = allocate(value, [0.0, 0.3, 0.55], 900.0)
    assert found.cost == pytest.approx(900.0)
    assert np.bincount(found.arm).tolist() == [7000, 3000]
    assert found.gap < 1e-9
    # online nobody who is indifferent is treated, so the budget can't be overrun
    assert not decide(value, [0.0, 0.3, 0.55], found.price).any()


def test_a_budget_that_does_not_bind_gives_everyone_their_best_arm():
    value, cost = bonus_world(1000)
    for budget in (1000.0, np.inf):
        found = allocate(value, cost, budget)
        np.testing.assert_array_equal(found.arm, value.argmax(axis=1))
        assert found.price == 0
        assert found.gap == pytest.approx(0, abs=1e-12)
    assert allocate(value, cost, np.inf).upper_bound == pytest.approx(value.max(axis=1).sum())


def test_a_return_below_the_floor_is_not_bought():
    value = np.array([[0.0, 0.29], [0.0, 0.31], [0.0, 0.30]])
    found = allocate(value, [0.0, 0.3], 10.0, min_return=1.0)
    assert found.arm.tolist() == [0, 1, 0]
    assert found.value == pytest.approx(0.01)
    assert found.price == 1.0


def test_no_budget_treats_nobody_but_free_arms_are_given():
    value = np.array([[0.0, 1.0, 0.2], [0.0, 1.0, -0.2]])
    found = allocate(value, [0.0, 0.5, 0.0], 0.0)
    assert found.arm.tolist() == [2, 0]
    assert (found.cost, found.value) == (0.0, 0.2)


def test_a_price_in_cents_fits_its_budget():
    assert allocate(np.array([[0.0, 1.0]] * 3), [0.0, 0.1], 0.3).arm.tolist() == [1, 1, 1]


def test_an_arm_that_saves_money_pays_for_another():
    value = np.array([[0.0, -0.1, 0.0], [0.0, 0.0, 5.0]])
    found = allocate(value, [0.0, -1.0, 1.0], 0.0)
    assert found.arm.tolist() == [1, 2]
    assert found.cost == 0.0


def test_an_arm_nobody_may_get_is_never_given():
    value, cost = bonus_world(100)
    eligible = np.ones(value.shape, dtype=bool)
    eligible[:, 2] = False
    found = allocate(value, cost, 10.0, eligible=eligible)
    assert 2 not in found.arm
    np.testing.assert_array_equal(found.arm, allocate(value[:, :2], cost[:2], 10.0).arm)


def test_control_is_always_eligible():
    found = allocate([[0.0, -1.0]], [0.0, 0.1], 1.0, eligible=[[False, True]])
    assert found.arm.tolist() == [0]


def test_no_units():
    found = allocate(np.zeros((0, 3)), [0.0, 0.1, 0.2], 1.0)
    assert (len(found.arm), found.value, found.cost, found.gap) == (0, 0.0, 0.0, 0.0)


@settings(max_examples=100, deadline=None)
@given(problems())
def test_online_decisions_agree_and_keep_to_the_budget(problem):
    value, cost, eligible, budget, min_return = problem
    found = allocate(value, cost, budget, min_return=min_return, eligible=eligible)
    online = decide(value, cost, found.price, eligible)
    assert totals(value, cost, online)[1] <= budget + 1e-9
    assert eligible[np.arange(len(value)), online].all()


def test_online_decisions_at_scale_spend_nearly_the_budget():
    value, cost = bonus_world(50_000)
    found = allocate(value, cost, 3000.0)
    online = decide(value, cost, found.price)
    assert 2999 < totals(value, cost, online)[1] <= 3000
    assert (online != found.arm).mean() < 1e-4


def test_ties_online_go_to_the_cheaper_then_the_lower_arm():
    value = [[0.0, 0.6, 0.8, 0.8], [0.0, 0.5, 0.5, 0.4]]
    assert decide(value, [0.0, 0.3, 0.5, 0.5], 1.0).tolist() == [1, 1]
    assert decide([[0.0, 0.3]], [0.0, 0.1], 3.0).tolist() == [0]  # 0.3 = 3 * 0.1 but for rounding


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": -1.0}, "budget must be a number that is not negative, not -1.0"),
        ({"budget": float("nan")}, "budget must be"),
        ({"cost": [0.0, np.inf]}, r"cost must be finite, but cost\[1\] is inf"),
        ({"value": [[0.0, np.nan]]}, r"value\[0, 1\] is nan"),
        ({"value": [0.0, 1.0]}, "shape"),
        ({"value": [[0.5, 1.0]]}, "arm 0 is control"),
        ({"cost": [0.1, 0.2]}, "0 for arm 0"),
        ({"cost": [0.0, 0.2, 0.3]}, "cost must have the shape"),
        ({"cost": "free"}, "cost must hold numbers"),
        ({"eligible": [[1, 1]]}, "eligible must be boolean"),
        ({"min_return": -0.5}, "min_return"),
        ({"min_return": np.inf}, "min_return"),
    ],
)
def test_bad_input_is_named(change, says):
    given = {"value": [[0.0, 1.0]], "cost": [0.0, 0.2], "budget": 1.0} | change
    with pytest.raises(DataError, match=says):
        allocate(given.pop("value"), given.pop("cost"), given.pop("budget"), **given)
