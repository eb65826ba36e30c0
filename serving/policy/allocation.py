"""Who gets what within a budget: the multiple-choice knapsack through its Lagrangian dual.

Each unit gets at most one arm. With a price lambda on cost, unit x takes
``argmax_a v_a(x) - lambda * c_a(x)``. As lambda falls a unit climbs the upper hull of its points
(cost, value) one step at a time, each at the lambda equal to the step's slope; so the slopes of all
steps, sorted, hold the exact lambda at which the budget runs out (Sinha & Zoltners 1979, "The
Multiple-Choice Knapsack Problem"; Kellerer, Pferschy & Pisinger 2004, chapter 11). What is then
left of the budget, less than one step, is filled greedily. At most about one step's value is lost,
which the reported gap bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from serving.policy.inputs import (
    Floats,
    Ints,
    amount,
    cost_matrix,
    eligible_matrix,
    numbers,
    value_matrix,
)
from serving.policy.knapsack import Relaxed, fill, relax

ROUNDING = 1e-12  # sums of money are rounded: three times 0.1 is within a budget of 0.3


@dataclass(frozen=True, eq=False)
class Allocation:
    """Arms within a budget, and how far from the best they can be at most.

    Attributes:
        arm: The arm of each unit, [N] int64.
        price: lambda, >= min_return: value asked for one more unit of cost. Equal to min_return
            where the budget doesn't bind. `decide` at this price spends no more than the budget.
        value: sum(v - min_return * c) over the given arms, the objective.
        cost: sum(c) over the given arms, never above the budget.
        upper_bound: No allocation within the budget has more value than this.
        gap: (upper_bound - value) / upper_bound, from 0 to 1; 0 where both are 0.
    """

    arm: Ints
    price: float
    value: float
    cost: float
    upper_bound: float
    gap: float


def allocate(
    value: ArrayLike,
    cost: ArrayLike,
    budget: float,
    *,
    min_return: float = 0.0,
    eligible: ArrayLike | None = None,
) -> Allocation:
    """Maximise sum(v - min_return * c) subject to sum(c) <= budget, one arm a unit.

    The answer doesn't depend on the order of the rows (units that tie may swap), and its value
    never falls when the budget grows. Other limits beside the budget: `serving.policy.planning`.

    Args:
        value: Value of each arm over control, [N, A]; column 0 (control) is 0.
        cost: Cost of each arm over control, [A] or [N, A]; arm 0 costs 0. May be negative (an arm
            that saves money) but not infinite: mark an arm that can't be given as not eligible.
        budget: Most that may be spent, >= 0; infinity for no limit.
        min_return: The smallest value worth paying for one unit of cost, >= 0 (0: any gain).
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed. An arm that
            nobody may get is simply never given.

    Raises:
        DataError: A wrong shape, a value or cost that isn't finite, a negative or NaN budget.
    """
    values = value_matrix(value)
    costs = cost_matrix(cost, (values.shape[0], values.shape[1]))
    allowed = eligible_matrix(eligible, (values.shape[0], values.shape[1]))
    floor = _finite("min_return", min_return)
    limit = amount("budget", budget)
    ceiling = limit * (1 + ROUNDING)
    net = values - floor * costs if floor else values
    relaxed = relax(net, costs, allowed, ceiling)
    arm = fill(net, costs, allowed, relaxed.arm, ceiling)
    return _report(net, costs, arm, relaxed, floor, limit)


def decide(
    value: ArrayLike, cost: ArrayLike, price: float, eligible: ArrayLike | None = None
) -> Ints:
    """The same choice online: argmax_a v_a - price * c_a, for each unit alone.

    Ties (within rounding) go to the cheaper arm, then to the lower index; so units that are
    indifferent at the price aren't treated, and spend stays within the budget of the allocation
    that found it.

    Args:
        value: Value of each arm over control, [N, A], less what other limits' prices ask for it.
        cost: Cost of each arm over control, [A] or [N, A].
        price: lambda, finite.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.

    Returns:
        The arm of each unit, [N] int64.
    """
    values = value_matrix(value)
    costs = cost_matrix(cost, (values.shape[0], values.shape[1]))
    allowed = eligible_matrix(eligible, (values.shape[0], values.shape[1]))
    rate = float(numbers("price", price))
    score = np.where(allowed, values - rate * costs, -np.inf)
    size = np.abs(values).max(axis=1) + abs(rate) * np.abs(costs).max(axis=1)
    best = score >= (score.max(axis=1) - ROUNDING * size)[:, None]
    return np.where(best, costs, np.inf).argmin(axis=1)


def _finite(name: str, given: float) -> float:
    return float(numbers(name, amount(name, given)))


def _report(
    net: Floats, cost: Floats, arm: Ints, relaxed: Relaxed, floor: float, budget: float
) -> Allocation:
    rows = np.arange(len(arm))
    value, spent = float(net[rows, arm].sum()), float(cost[rows, arm].sum())
    bound = max(relaxed.bound, value)
    return Allocation(
        arm=arm,
        price=relaxed.price + floor,
        value=value,
        cost=min(spent, budget),
        upper_bound=bound,
        gap=(bound - value) / bound if bound > 0 else 0.0,
    )
