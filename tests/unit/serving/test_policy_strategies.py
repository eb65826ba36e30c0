"""Strategies of exploration: true propensities, floors, equal epsilon, sticky draws, caps that hold."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from campaigns.errors import DataError
from serving.policy.allocation import decide
from serving.policy.committee import choices_of, disagreement, disputed, vote_shares
from serving.policy.exploration import explore
from serving.policy.mixture import draw, exploration_cost, mixture, rate_within
from serving.policy.strategies import dial, directed, epsilon_greedy, thompson

COST = np.array([0.0, 0.3, 0.55])
FLOOR = 0.01
KINDS = ("greedy", "directed", "thompson")


class Crowd:
    """Units, and an ensemble whose members disagree about some of them."""

    def __init__(self, n=400, members=7, arms=3, seed=0, price=0.8, all_eligible=False):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0.2, 0.4, (n, arms))
        value = truth + rng.normal(0, rng.gamma(1, 0.3, (1, n, 1)), (members, n, arms))
        value[:, :, 0] = 0.0
        self.value, self.cost = value, np.linspace(0, 0.6, arms)
        self.eligible = np.ones((n, arms), bool)
        if not all_eligible:
            self.eligible = rng.random((n, arms)) < 0.8
            self.eligible[:, 0] = True
        self.price = price
        self.greedy = decide(value.mean(axis=0), self.cost, price, self.eligible)
        chosen = choices_of(value, self.cost, price, self.eligible)
        self.votes = vote_shares(chosen, arms)
        self.units = [f"u{i}" for i in range(n)]

    def plan(self, kind, rate, floor=FLOOR):
        if kind == "greedy":
            return epsilon_greedy(self.greedy, self.eligible, rate)
        if kind == "thompson":
            return thompson(self.greedy, self.eligible, self.votes, rate=rate, floor=floor)
        doubt = disagreement(self.votes)
        dialled = dial(doubt, epsilon=rate, floor=floor, arms=self.votes.shape[1])
        return directed(self.greedy, self.eligible, self.votes, dialled)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(0, 99),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_propensities_sum_to_one_above_their_floor(kind, n, members, arms, seed, rate, share):
    crowd = Crowd(n, members, arms, seed)
    floor = share * rate / arms  # a floor that the rate can pay for
    full = crowd.plan(kind, rate, floor).propensities()
    np.testing.assert_allclose(full.sum(axis=1), 1, atol=1e-12)
    assert (full[~crowd.eligible] == 0).all()
    assert (full[crowd.eligible] >= floor - 1e-12).all()
    if kind != "greedy":
        assert crowd.plan(kind, rate, floor).epsilon.mean() == pytest.approx(rate, abs=1e-9)
    held = np.arange(n) % 2 == 0
    np.testing.assert_array_equal(
        crowd.plan(kind, rate, floor).propensities(held)[held],
        np.eye(arms)[np.zeros(held.sum(), int)],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_propensities(kind):
    crowd = Crowd(12, members=5, seed=3)
    plan = crowd.plan(kind, 0.5)
    epochs = 1500
    counts = np.zeros((12, 3))
    for epoch in range(epochs):
        found = draw(plan, crowd.units, epoch, "s")
        counts[np.arange(12), found.arm] += 1
    full = plan.propensities()
    for got, chances in zip(counts, full):
        assert got[chances == 0].sum() == 0
        some = chances > 0
        if some.sum() > 1:
            assert chisquare(got[some], chances[some] * epochs).pvalue > 1e-4
    np.testing.assert_allclose(found.propensity, full[np.arange(12), found.arm])


@pytest.mark.parametrize("kind", KINDS)
def test_draws_stick_whatever_the_order_and_the_company(kind):
    crowd = Crowd(300, seed=1)
    plan = crowd.plan(kind, 0.4)
    one = draw(plan, crowd.units, "e", "s", holdout=0.1)
    order = np.random.default_rng(0).permutation(300)[:90]
    some = mixture(
        plan.greedy[order],
        plan.eligible[order],
        trial=plan.trial,
        directed=plan.directed[order],
        chances=plan.chances[order],
    )
    again = draw(some, [crowd.units[i] for i in order], "e", "s", holdout=0.1)
    for field in ("arm", "propensity", "explored", "directed", "holdout", "explored_propensity"):
        np.testing.assert_array_equal(getattr(again, field), getattr(one, field)[order])
    held = one.holdout
    assert held.any()
    assert (one.arm[held] == 0).all()
    assert (one.propensity[held] == 1).all()
    assert not (held & (one.explored | one.directed)).any()
    untouched = ~(one.explored | one.directed | held)
    np.testing.assert_array_equal(one.arm[untouched], plan.greedy[untouched])
    other = draw(plan, crowd.units, "f", "s", holdout=0.1)
    assert (other.arm != one.arm).any()


def test_without_directed_draws_it_is_what_explore_draws():
    crowd = Crowd(2000, seed=2)
    ours = draw(crowd.plan("greedy", 0.3), crowd.units, "e", "s", holdout=0.05)
    theirs = explore(crowd.greedy, crowd.eligible, 0.3, crowd.units, "e", "s", holdout=0.05)
    for field in ("arm", "propensity", "explored", "explored_propensity", "holdout"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


@pytest.mark.parametrize("kind", ["directed", "thompson"])
def test_explored_rows_stay_a_uniform_trial(kind):
    """Whatever directs the rest, they say nothing of the units' doubt, and arms are uniform."""
    crowd = Crowd(30_000, seed=4, all_eligible=True)
    found = draw(crowd.plan(kind, 0.5, floor=0.1), crowd.units, "e", "s")
    assert found.explored.mean() == pytest.approx(0.3, abs=0.01)
    doubt = disagreement(crowd.votes)
    assert doubt[found.explored].mean() == pytest.approx(doubt.mean(), abs=0.01)
    assert chisquare(np.bincount(found.arm[found.explored], minlength=3)).pvalue > 1e-4
    assert (found.explored_propensity[found.explored] == 1 / 3).all()
    assert np.isnan(found.explored_propensity[~found.explored]).all()


def test_votes_are_what_each_member_would_give():
    crowd = Crowd(50, members=4, seed=5)
    for unit in range(50):
        best = []
        for own in crowd.value:
            scores = [
                own[unit, a] - crowd.price * crowd.cost[a] if crowd.eligible[unit, a] else -np.inf
                for a in range(3)
            ]
            best.append(int(np.argmax(scores)))
        np.testing.assert_allclose(crowd.votes[unit], np.bincount(best, minlength=3) / 4)
        apart = np.mean([a != b for a, b in product(best, best)])
        assert disagreement(crowd.votes)[unit] == pytest.approx(apart)
    own_costs = np.broadcast_to(crowd.cost, crowd.value.shape)
    again = choices_of(crowd.value, own_costs, crowd.price, crowd.eligible)
    np.testing.assert_allclose(vote_shares(again, 3), crowd.votes)


def test_both_sides_of_a_dispute_get_draws():
    votes = np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.5, 0.25, 0.25]])
    eligible = np.array([[True] * 3, [True, True, False], [True] * 3])
    np.testing.assert_allclose(
        disputed(votes, eligible), [[0.5, 0.5, 0], [0.5, 0.5, 0], [0.4, 0.3, 0.3]]
    )


def test_who_is_disputed_more_is_explored_more():
    crowd = Crowd(500, members=10, seed=6)
    doubt = disagreement(crowd.votes)
    order = np.argsort(doubt)
    rates = crowd.plan("directed", 0.1).epsilon[order]
    assert (np.diff(rates) >= -1e-12).all()
    assert rates[0] == pytest.approx(3 * FLOOR)
    assert rates[-1] > 0.15


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.18, 0.32, 0.5]), min_size=1, max_size=20), st.floats(0, 1)
)
def test_the_dial_keeps_the_mean_epsilon_however_few_are_disputed(doubt, epsilon):
    found = dial(doubt, epsilon=epsilon, floor=0.02, arms=3)
    rates = found.trial + found.directed(np.array(doubt))
    assert rates.mean() == pytest.approx(epsilon, abs=1e-9)
    assert found.trial == pytest.approx(min(0.06, epsilon))


def test_the_dial_serves_one_unit_as_it_serves_all():
    crowd = Crowd(200, seed=7)
    dialled = dial(disagreement(crowd.votes), epsilon=0.2, floor=FLOOR, arms=3)
    every = directed(crowd.greedy, crowd.eligible, crowd.votes, dialled).propensities()
    one = directed(crowd.greedy[5:6], crowd.eligible[5:6], crowd.votes[5:6], dialled)
    np.testing.assert_array_equal(one.propensities(), every[5:6])


def test_thompson_gives_the_shares_of_the_members():
    crowd = Crowd(100, members=5, seed=8, all_eligible=True)
    full = thompson(crowd.greedy, crowd.eligible, crowd.votes, floor=0.02).propensities()
    np.testing.assert_allclose(full, 0.02 + 0.94 * crowd.votes)
    half = thompson(crowd.greedy, crowd.eligible, crowd.votes, rate=0.5, floor=0.02).propensities()
    np.testing.assert_allclose(half, 0.02 + 0.44 * crowd.votes + 0.5 * np.eye(3)[crowd.greedy])


@pytest.mark.parametrize("kind", KINDS)
def test_a_spend_cap_is_kept_and_used(kind):
    crowd = Crowd(3000, seed=9)
    make = lambda rate: crowd.plan(kind, rate)  # noqa: E731
    free = float(exploration_cost(make(0.5), crowd.cost).sum())
    assert rate_within(make, crowd.cost, np.inf, most=0.5) == 0.5
    assert rate_within(make, crowd.cost, 0.0, most=0.5) == pytest.approx(0.0, abs=1e-12)
    rate = rate_within(make, crowd.cost, free / 3, most=0.5)
    plan = make(rate)
    assert exploration_cost(plan, crowd.cost).sum() == pytest.approx(free / 3, rel=1e-9)
    paid = [
        crowd.cost[found.arm[found.arm != plan.greedy]].sum()
        for found in (draw(plan, crowd.units, epoch, "s") for epoch in range(40))
    ]
    assert np.mean(paid) == pytest.approx(free / 3, abs=4 * np.std(paid) / 40**0.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trial": 1.1}, "trial must be a number from 0 to 1"),
        ({"directed": 0.9}, "directed must be from 0 to 0.8 beside a trial of 0.2"),
        ({"directed": float("nan")}, "directed must be finite"),
        ({"greedy_arm": [0, 1]}, r"greedy_arm\[1\] is 1"),
        ({"chances": [[0.5, 0.4], [1, 0]]}, r"chances\[0\] is .* must sum to 1"),
        ({"chances": [[0.5, 0.5], [0, 1]]}, r"chances\[1\] is .* over the eligible arms"),
        ({"chances": [[1.5, -0.5], [1, 0]]}, "with negative ones"),
        ({"eligible": [True, True]}, "eligible must have the shape"),
    ],
)
def test_bad_mixtures_are_named(change, says):
    good = {
        "greedy_arm": [0, 0],
        "eligible": np.array([[True, True], [True, False]]),
        "trial": 0.2,
        "directed": 0.1,
    }
    with pytest.raises(DataError, match=says):
        mixture(**good | change)


def test_bad_ensembles_and_floors_are_named():
    with pytest.raises(DataError, match=r"shape \[members, units, arms\]"):
        choices_of(np.zeros((2, 3)), COST, 0.0)
    with pytest.raises(DataError, match="with members it must be"):
        choices_of(np.zeros((2, 4, 3)), np.zeros((1, 4, 3)), 0.0)
    with pytest.raises(DataError, match="3 arms can have at most 0.3333 each"):
        dial([0.5], epsilon=0.5, floor=0.4, arms=3)
    with pytest.raises(DataError, match="doubt must hold one number"):
        dial([-0.5], epsilon=0.5, floor=0.0, arms=3)
