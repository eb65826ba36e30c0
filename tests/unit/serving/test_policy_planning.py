"""Allocation within several limits: every limit kept, near the linear programme, the same in any portions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from campaigns.errors import DataError
from serving.policy import core, limits, planning, portions
from serving.policy.allocation import allocate
from serving.policy.planning import allocate_within, plan
from serving.policy.portions import Portion, Portions

COST = np.array([0.0, 0.3, 0.55])


def world(units, seed=0, arms=3):
    """Values, and limits of every kind that all bind or nearly do."""
    rng = np.random.default_rng(seed)
    value = np.c_[np.zeros(units), rng.normal(0.2, 0.4, (units, arms - 1))]
    cost = np.r_[0, np.linspace(0.3, 0.55, arms - 1)]
    harm = np.c_[np.zeros(units), rng.normal(-0.02, 0.1, (units, arms - 1))]
    newcomers = rng.random(units) < 0.1
    return value, [
        limits.budget(0.06 * units, cost),
        limits.stock(units // 100, 2, arms, name="skins"),
        limits.least_share(0.3, newcomers, arms, name="newcomers"),
        limits.guardrail(0.001 * units, harm, name="sessions"),
    ]


def used(limit, arm):
    return np.broadcast_to(limit.use, (len(arm), limit.use.shape[-1]))[
        np.arange(len(arm)), arm
    ].sum()


def programme(value, given, eligible=None, whole=False):
    """The same problem for HiGHS: the best value, or None where no allocation keeps to the limits."""
    units, arms = value.shape
    one_each = sparse.kron(sparse.eye(units), np.ones((1, arms)))
    uses = [np.broadcast_to(limit.use, value.shape).ravel() for limit in given]
    most = np.ones(value.size) if eligible is None else eligible.ravel().astype(float)
    bounds = [limit.at_most for limit in given]
    if whole:
        found = milp(
            -value.ravel(),
            integrality=np.ones(value.size),
            bounds=Bounds(0, most),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(np.array(uses), ub=bounds),
            ],
        )
    else:
        found = linprog(
            -value.ravel(),
            A_ub=np.array(uses),
            b_ub=bounds,
            A_eq=one_each,
            b_eq=np.ones(units),
            bounds=np.c_[np.zeros(value.size), most],
        )
    return None if found.x is None else -found.fun


@st.composite
def problems(draw):
    """Small instances on a coarse grid, where ties, exact fits and contradictions are common."""
    units, arms = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    value = np.c_[np.zeros(units), rng.integers(-4, 12, (units, arms - 1)) / 4]
    cost = np.r_[0, rng.integers(0, 8, arms - 1) / 8]
    by_factor = np.r_[0, rng.integers(0, 4, arms - 1) / 8]
    effect = np.c_[np.zeros(units), rng.integers(-4, 4, (units, arms - 1)) / 8]
    eligible = rng.random((units, arms)) < 0.8
    eligible[:, 0] = True
    every = [
        limits.budget(draw(st.integers(0, 24)) / 8, cost),
        limits.budget(draw(st.integers(0, 8)) / 8, by_factor, name="factor"),
        limits.budget(
            draw(st.integers(0, 8)) / 8, cost, name="today", units=rng.random(units) < 0.5
        ),
        limits.stock(draw(st.integers(0, 4)), 1, arms, name="stock"),
        limits.least_share(
            draw(st.integers(0, 4)) / 8, rng.random(units) < 0.5, arms, name="share"
        ),
        limits.guardrail(draw(st.integers(0, 8)) / 8, effect, name="guardrail"),
    ]
    kept = draw(st.lists(st.booleans(), min_size=6, max_size=6))
    return value, [limit for limit, keep in zip(every, kept) if keep], eligible


@settings(max_examples=40, deadline=None)
@given(problems())
def test_every_limit_is_kept_and_the_bound_is_that_of_the_linear_programme(problem):
    value, given_limits, eligible = problem
    best = programme(value, given_limits, eligible) if given_limits else value.max(axis=1).sum()
    try:
        arm, found = allocate_within(value, given_limits, eligible=eligible)
    except DataError:
        assert programme(value, given_limits, eligible, whole=True) is None
        return
    rows = np.arange(len(value))
    assert eligible[rows, arm].all()
    for limit in given_limits:
        assert used(limit, arm) <= limit.at_most + 1e-9
        assert found.uses[limit.name] == pytest.approx(used(limit, arm))
        assert found.prices[limit.name] >= 0
    assert found.value == pytest.approx(value[rows, arm].sum())
    assert found.value <= found.upper_bound
    if given_limits:
        assert best is not None
        assert best - 1e-6 <= found.upper_bound <= best + 1e-4 * max(1, abs(best))


def test_at_scale_the_gap_is_tiny_and_every_limit_is_kept():
    value, given_limits = world(50_000)
    arm, found = allocate_within(value, given_limits)
    assert found.gap < 1e-4
    for limit in given_limits:
        assert used(limit, arm) <= limit.at_most * (1 + 1e-9) + 1e-9
    assert found.prices["budget"] > 0
    assert found.prices["newcomers"] > 0
    assert found.prices["sessions"] > 0


def test_value_and_shadow_prices_are_those_of_highs():
    value, given_limits = world(2000)
    _, found = allocate_within(value, given_limits)
    best = programme(value, given_limits)
    assert found.upper_bound == pytest.approx(best, rel=1e-6)
    assert found.value == pytest.approx(best, rel=2e-3)
    for number, limit in enumerate(given_limits):  # one more unit of a bound brings its price
        step = 0.2
        wider = limits.Limit(limit.name, limit.use, limit.at_most + step)
        others = [*given_limits[:number], wider, *given_limits[number + 1 :]]
        gain = (programme(value, others) - best) / step
        assert found.prices[limit.name] == pytest.approx(gain, rel=0.1, abs=2e-3)


@pytest.mark.parametrize("several", [False, True])
def test_one_answer_whatever_the_portions(several, monkeypatch):
    value, given_limits = world(7000)
    given_limits = given_limits if several else given_limits[:1]
    one, first = allocate_within(value, given_limits)
    for rows in (900, 7000):
        monkeypatch.setattr(portions, "ROWS", rows)
        other, again = allocate_within(value, given_limits)
        np.testing.assert_array_equal(one, other)
        assert (again.value, again.prices, again.uses) == (first.value, first.prices, first.uses)
        assert again.upper_bound == first.upper_bound


@pytest.mark.parametrize("several", [False, True])
def test_the_order_of_the_portions_is_irrelevant(several):
    value, given_limits = world(5000)
    given_limits = given_limits if several else given_limits[:1]
    names = np.array([f"unit-{row}" for row in range(5000)])

    def table(starts):
        for start in starts:
            part = slice(start, start + 1000)
            rows = tuple(limit.rows(part) for limit in given_limits)
            yield Portion(value[part], rows, names[part])

    starts = [0, 1000, 2000, 3000, 4000]
    one = plan(Portions(lambda: table(starts)))
    other = plan(Portions(lambda: table(starts[::-1])))
    assert (one.value, one.prices, one.uses) == (other.value, other.prices, other.uses)
    given_there = np.concatenate([one.arms(portion) for portion in table(starts)])
    given_here = np.concatenate([other.arms(portion) for portion in table(starts[::-1])][::-1])
    np.testing.assert_array_equal(given_there, given_here)
    assert used(given_limits[0], given_there) <= given_limits[0].at_most


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(0, 40))
def test_one_budget_agrees_with_the_sorted_solution(seed, units, tenths):
    value, _ = world(units, seed, arms=4)
    cost = np.random.default_rng(seed).uniform(-0.2, 1, value.shape)
    cost[:, 0] = 0
    exact = allocate(value, cost, tenths / 10)
    arm, found = allocate_within(value, [limits.budget(tenths / 10, cost)])
    assert cost[np.arange(units), arm].sum() <= tenths / 10 + 1e-9
    assert found.upper_bound == pytest.approx(exact.upper_bound, rel=1e-4, abs=1e-9)
    assert found.value <= exact.upper_bound + 1e-9
    assert found.prices["budget"] == pytest.approx(exact.price, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("several", [False, True])
def test_a_constant_score_is_split_by_lot_as_far_as_the_limits_go(several):
    value = np.tile([0.0, 0.2, 0.3], (20_000, 1))
    given_limits = [limits.budget(900.0, COST)]
    if several:
        given_limits.append(limits.stock(1000, 1, 3, name="coins"))
    arm, found = allocate_within(value, given_limits)
    best = programme(
        value[:2000], [limits.Limit(li.name, li.use, li.at_most / 10) for li in given_limits]
    )
    assert found.gap < 1e-3
    assert found.value == pytest.approx(10 * best, rel=1e-3)
    assert COST[arm].sum() <= 900 + 1e-9


def test_all_units_indifferent_and_no_two_alike():
    """Value is twice the cost, so at the price 2 nobody cares; lots and the core still fill the budget."""
    cost = np.random.default_rng(0).uniform(0.1, 1, (20_000, 3))
    cost[:, 0] = 0
    given_limits = [limits.budget(900.0, cost), limits.stock(900, 1, 3, name="coins")]
    arm, found = allocate_within(2 * cost, given_limits)
    assert found.gap < 1e-3
    assert cost[np.arange(20_000), arm].sum() <= 900
    assert (arm == 1).sum() <= 900


def test_ten_units():
    value, _ = world(10)
    given_limits = [
        limits.budget(1.0, COST),
        limits.least_share(0.2, np.arange(10) < 5, 3, name="first"),
    ]
    arm, found = allocate_within(value, given_limits)
    assert COST[arm].sum() <= 1
    assert (arm[:5] > 0).sum() >= 1
    assert found.value <= programme(value, given_limits, whole=True) + 1e-9
    assert found.units == 10


def test_no_units_and_no_limits():
    arm, found = allocate_within(np.zeros((0, 3)), [limits.budget(1.0, COST)])
    assert (len(arm), found.units) == (0, 0)
    value, _ = world(100)
    arm, found = allocate_within(value, [])
    np.testing.assert_array_equal(arm, value.argmax(axis=1))
    assert (found.gap, found.prices) == (0, {})


def test_an_infinite_budget_is_no_limit_and_an_empty_one_gives_what_is_free():
    value, _ = world(1000)
    arm, found = allocate_within(value, [limits.budget(np.inf, COST)])
    np.testing.assert_array_equal(arm, value.argmax(axis=1))
    assert found.prices == {"budget": 0.0}
    assert found.uses["budget"] == pytest.approx(COST[arm].sum())
    arm, _ = allocate_within(value, [limits.budget(0.0, [0.0, 0.0, 0.5])])
    assert set(arm) == {0, 1}


def test_an_arm_nobody_may_get_is_never_given():
    value, given_limits = world(1000)
    eligible = np.ones(value.shape, dtype=bool)
    eligible[:, 1] = False
    with pytest.raises(DataError, match="'skins' and 'newcomers' can't be kept together"):
        allocate_within(value, given_limits, eligible=eligible)  # ten skins for thirty newcomers
    arm, _ = allocate_within(value, given_limits[:1], eligible=eligible)
    assert set(arm) == {0, 2}


def test_a_period_and_a_factor_have_budgets_of_their_own():
    value, _ = world(3000, arms=4)  # arm 3 has both factors: coins (arm 1) and a skin (arm 2)
    coins, skin, today = (
        np.array([0, 0.3, 0, 0.3]),
        np.array([0, 0, 0.5, 0.5]),
        np.arange(3000) < 1000,
    )
    given_limits = [
        limits.budget(100.0, coins, name="coins"),
        limits.budget(60.0, skin, name="skins"),
        limits.budget(30.0, coins + skin, name="today", units=today),
        limits.budget(90.0, coins + skin, name="tomorrow", units=~today),
    ]
    arm, found = allocate_within(value, given_limits)
    assert coins[arm].sum() <= 100
    assert skin[arm].sum() <= 60
    assert (coins + skin)[arm][today].sum() == pytest.approx(30, abs=0.5)
    assert (coins + skin)[arm][~today].sum() == pytest.approx(90, abs=0.5)
    assert found.prices["today"] > found.prices["tomorrow"] > 0
    assert found.gap < 5e-3


def test_one_limit_that_asks_too_much_is_named():
    value, _ = world(100)
    eligible = np.zeros(value.shape, dtype=bool)
    asks = limits.least_share(0.5, np.ones(100, dtype=bool), 3, name="everybody's share")
    with pytest.raises(DataError, match="\"everybody's share\" can't be kept even alone"):
        allocate_within(value, [asks], eligible=eligible)


def test_limits_that_contradict_each_other_are_named():
    value, given_limits = world(1000)
    asks = limits.least_share(0.9, np.ones(1000, dtype=bool), 3, name="share")
    with pytest.raises(DataError, match=r"'budget'.* 'share'.* can't be kept together"):
        allocate_within(value, [given_limits[0], asks, given_limits[3]])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: limits.budget(-1.0, COST), "budget must be a number that is not negative"),
        (lambda: limits.budget(np.nan, COST), "budget must be a number"),
        (lambda: limits.budget(1.0, [0.0, np.inf]), "must be finite"),
        (lambda: limits.budget(1.0, [0.1, 0.2]), "0 for arm 0"),
        (lambda: limits.budget(1.0, 0.3), "must have the shape"),
        (lambda: limits.budget(1.0, COST, units=[1, 0]), "units must be boolean"),
        (lambda: limits.stock(5, 0, 3, name="s"), "arms 1 to 2 can"),
        (lambda: limits.stock(-5, 1, 3, name="s"), "not negative"),
        (lambda: limits.least_share(1.5, np.ones(2, bool), 3, name="s"), "from 0 to 1"),
        (lambda: limits.guardrail(-1, [[0.0, 1.0]], name="g"), "g must be a number"),
        (lambda: limits.guardrail(1, [[0.0, np.nan]], name="g"), "must be finite"),
    ],
)
def test_a_bad_limit_is_refused(make, says):
    with pytest.raises(DataError, match=says):
        make()


@pytest.mark.parametrize(
    ("value", "given_limits", "says"),
    [
        ([[0.0, np.nan]], [], "value.* is nan"),
        ([[0.5, 1.0]], [], "arm 0 is control"),
        ([[0.0, 1.0]], [limits.budget(1.0, COST)], "use of 'budget' must have the shape"),
        ([[0.0, 1.0]], [limits.budget(1.0, [0.0, 1.0])] * 2, "names of their own"),
    ],
)
def test_bad_tables_are_refused(value, given_limits, says):
    with pytest.raises(DataError, match=says):
        allocate_within(value, given_limits)


def test_portions_that_disagree_are_refused():
    def table():
        for most in (1.0, 2.0):
            yield Portion(np.zeros((2, 3)), (limits.budget(most, COST),), np.arange(2))

    with pytest.raises(DataError, match="same arms and limits"):
        plan(Portions(table))


def test_a_core_of_few_units_grows_until_it_is_enough(monkeypatch):
    value, given_limits = world(5000)
    monkeypatch.setattr(planning, "CORE", 4)
    arm, found = allocate_within(value, given_limits)
    assert found.gap < 1e-3
    assert all(used(limit, arm) <= limit.at_most + 1e-6 for limit in given_limits)


def test_a_core_that_fits_nowhere_says_so():
    two = np.array([[0.0, 1.0], [0.0, 1.0]])
    group = core.Core(np.arange(2), np.zeros((2, 2)), two, two[None], np.ones((2, 2), dtype=bool))
    arm, fractions = core.settle(group, np.array([-1.0]))
    assert arm is None
    assert fractions == -np.inf


def test_the_example_of_the_docs_works():
    page = Path(__file__).resolve().parents[3] / "docs" / "allocation.md"
    (example,) = re.findall(r"^```py\n(.*?)^```", page.read_text(), re.M | re.S)
    names: dict[str, Any] = {}
    exec(example.replace("50_000", "5_000").replace("3000.0", "300.0"), names)
    assert names["plan"].gap < 1e-2
    assert (names["arm"] == 2).sum() <= 500
