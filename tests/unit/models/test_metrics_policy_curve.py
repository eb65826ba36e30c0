"""The greedy path over (unit, arm) pairs, its curve and MCMV-AUCC."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics import greedy_path, mcmv_aucc, policy_curve, policy_values


def slow_greedy(value, cost):
    """Take pairs by descending value / cost, passing over units that have an arm."""
    rows, arms = value.shape
    pairs = sorted(
        ((value[i, a] - value[i, 0]) / (cost[a] - cost[0]), i, a)
        for i in range(rows)
        for a in range(1, arms)
    )
    taken, order = {}, []
    for _, i, a in reversed(pairs):
        if i not in taken:
            taken[i] = a
            order.append(i)
    return np.array([taken[i] for i in range(rows)]), order


def test_greedy_takes_pairs_by_value_over_cost() -> None:
    rng = np.random.default_rng(0)
    value, cost = rng.normal(size=(50, 4)), np.array([0.1, 0.5, 1.0, 2.0])
    arm, rank = greedy_path(value, cost)
    expected, order = slow_greedy(value, cost)
    assert arm.tolist() == expected.tolist()
    assert np.argsort(-rank).tolist() == order


def test_free_arms_come_first_by_value_and_last_if_harmful() -> None:
    value = np.array([[0, 1.0, 5.0], [0, 2.0, 5.0], [0, -1.0, -5.0], [0, 3.0, 9.0], [0, 0.0, -1.0]])
    arm, rank = greedy_path(value, np.array([0.0, 0.0, 1.0]))
    assert arm.tolist() == [1, 1, 2, 1, 1]
    assert np.argsort(-rank).tolist() == [3, 1, 0, 4, 2]


@pytest.fixture
def trial():
    """Combinations of two factors: arm 3 is both, costs add up and the values interact."""
    rng = np.random.default_rng(1)
    rows = 60_000
    x = rng.random(rows)
    value = np.stack([0 * x, x, 0.2 + 0 * x, x + 0.2 + 0.5 * x], axis=1)
    cost = np.array([0.0, 1.0, 0.5, 1.5])
    chance = np.array([0.4, 0.3, 0.2, 0.1])
    arm = rng.choice(4, rows, p=chance)
    reward = 3 * x + value[np.arange(rows), arm] + rng.normal(0, 0.5, rows)
    return value, cost, reward, arm, chance[arm]


def test_curve_measures_what_the_path_truly_earns(trial) -> None:
    value, cost, reward, arm, propensity = trial
    curve = policy_curve(value, cost, reward, arm, propensity=propensity)
    chosen, rank = greedy_path(value, cost)
    order = np.argsort(-rank)
    rows = np.arange(len(arm))
    truth = np.cumsum(value[rows, chosen][order]) / len(arm)
    spent = np.cumsum(cost[chosen][order]) / len(arm)
    for budget in (0.2, 0.5, 1.0):
        assert curve.value_at(budget) == pytest.approx(np.interp(budget, spent, truth), abs=0.02)
    assert curve.cost[-1] == pytest.approx(spent[-1])
    assert curve.value_at(99) == curve.value[-1] == pytest.approx(truth[-1], abs=0.02)
    assert curve.value_at(0) == 0
    area = np.trapezoid(np.append(0, truth) / truth[-1], np.append(0, spent) / spent[-1])
    assert curve.aucc == pytest.approx(area, abs=0.01)


def test_better_predictions_have_more_area_and_random_ones_half(trial) -> None:
    value, cost, reward, arm, propensity = trial
    good = mcmv_aucc(value, cost, reward, arm, propensity=propensity, replicates=60)
    bad = mcmv_aucc(value[::-1], cost, reward, arm, propensity=propensity)
    assert 0.5 < good.low < good.estimate < good.high
    assert bad.estimate == pytest.approx(0.5, abs=0.03)
    assert np.isnan(bad.low)


def test_interactions_are_kept(trial) -> None:
    """A model that adds the factors' effects up misses arm 3's worth and earns less."""
    value, cost, reward, arm, propensity = trial
    added = value.copy()
    added[:, 3] = value[:, 1] + value[:, 2]
    with_them, without = (
        policy_curve(v, cost, reward, arm, propensity=propensity).value_at(0.9)
        for v in (value, added)
    )
    assert with_them > without + 0.02


def test_observed_costs_replace_the_planned_ones(trial) -> None:
    value, cost, reward, arm, propensity = trial
    spent = cost[arm] + np.random.default_rng(2).normal(0, 0.1, len(arm))
    planned, observed = (
        policy_curve(value, cost, reward, arm, propensity=propensity, spent=s)
        for s in (None, spent)
    )
    assert observed.cost[-1] == pytest.approx(planned.cost[-1], abs=0.01)
    assert observed.aucc == pytest.approx(planned.aucc, abs=0.01)


def test_one_arm_is_the_usual_cost_curve() -> None:
    from models.metrics import aucc

    rng = np.random.default_rng(3)
    tau, arm = rng.random(500), rng.integers(0, 2, 500)
    reward = arm * tau + rng.normal(0, 0.1, 500)
    value = np.stack([np.zeros(500), tau], axis=1)
    found = mcmv_aucc(value, [0, 2.0], reward, arm).estimate
    assert found == pytest.approx(aucc(reward, tau, arm))


def test_rows_that_say_nothing_are_refused() -> None:
    value = np.array([[0, 1.0, 2.0]] * 4)
    with pytest.raises(DataError, match="0 treated and 2 control"):
        policy_curve(value, [0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1])
    with pytest.raises(DataError, match="cost has shape"):
        policy_curve(value, [0, 1], [1, 1, 1, 1], [0, 1, 0, 1])


def test_values_of_budgets_have_intervals(trial) -> None:
    value, cost, reward, arm, propensity = trial
    curve = policy_curve(value, cost, reward, arm, propensity=propensity)
    budgets = curve.cost[-1] * np.array([0.2, 0.5, 1.0])
    found = policy_values(value, cost, reward, arm, budgets, propensity=propensity, replicates=60)
    for budget, interval in zip(budgets, found):
        assert interval.estimate == pytest.approx(curve.value_at(budget))
        assert interval.low < interval.estimate < interval.high
    again = policy_values(
        value, cost, reward, arm, budgets[:1], propensity=propensity, replicates=60
    )
    assert again == found[:1]
