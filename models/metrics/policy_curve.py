"""The policy curve: what a greedy spend over (unit, arm) pairs buys, and its area, MCMV-AUCC."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.bootstrap import trial_intervals
from models.metrics.checks import (
    Array,
    Index,
    arm_indices,
    both_groups,
    inverse_propensities,
    numbers,
    weights,
)
from models.metrics.curves import area, gain, spend, to_one
from models.metrics.intervals import Interval
from models.metrics.points import Points
from models.metrics.trial import Trial
from models.metrics.uplift import Core, aucc_core


@dataclass(frozen=True)
class PolicyCurve:
    """Points of a greedy path, from nobody to everybody treated.

    Attributes:
        share: of the units that are treated [M + 1], 0 to 1.
        cost: incremental cost per unit of the population [M + 1].
        value: incremental value per unit of the population [M + 1].
    """

    share: Array
    cost: Array
    value: Array

    @property
    def aucc(self) -> float:
        """Area of value by cost, each scaled to end at 1; nan where an end isn't above 0."""
        return float(area(to_one(self.cost[None]), to_one(self.value[None]))[0])

    def value_at(self, budget: float) -> float:
        """Incremental value per unit where the incremental cost per unit first reaches ``budget``."""
        past = np.flatnonzero(self.cost >= budget)
        if len(past) == 0 or past[0] == 0:
            return float(self.value[-1 if len(past) == 0 else 0])
        right = past[0]
        (low, high), (below, above) = (
            column[right - 1 : right + 1] for column in (self.cost, self.value)
        )
        return float(below + (above - below) * (budget - low) / (high - low))


def greedy_path(value: ArrayLike, cost: ArrayLike) -> tuple[Index, Array]:
    """The greedy order of (unit, arm) pairs by value / cost, at most one arm a unit.

    Taking pairs by descending ratio and passing over units that have an arm already, each unit ends
    with the arm of its best ratio, in the order of that ratio.

    Args:
        value: predicted value of each arm [N, A]; taken relative to control, arm 0.
        cost: unit cost of each arm [A] or [N, A]; taken relative to control.

    Returns:
        arm [N] from 1 to A - 1, and rank [N], higher first (equal where the ratios are equal). An
        arm that costs nothing extra comes first where it is worth something, by its value, and
        last where it does harm.
    """
    worth = numbers("value", value, (None, None))
    rows, arms = worth.shape
    by_unit = np.ndim(cost) == 2
    price = np.broadcast_to(
        numbers("cost", cost, (rows, arms) if by_unit else (arms,)), worth.shape
    )
    gained, paid = worth[:, 1:] - worth[:, :1], price[:, 1:] - price[:, :1]
    free = np.where(gained == 0, 0.0, np.copysign(np.inf, gained))
    ratio = np.where(paid > 0, gained / np.where(paid > 0, paid, 1.0), free)

    best = ratio.max(axis=1, keepdims=True)
    chosen = np.where(ratio == best, gained, -np.inf).argmax(axis=1)
    first = best[:, 0]
    second = np.where(np.isinf(first), gained[np.arange(rows), chosen], 0.0)
    return chosen + 1, _ranks(first, second)


def policy_curve(
    value: ArrayLike,
    cost: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    spent: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> PolicyCurve:
    """The cost curve of :func:`greedy_path`, measured on logged randomized rows.

    The value bought at a depth is the depth times the inverse-propensity weighted mean reward of
    the rows there that happened to get their own chosen arm, minus that of the control rows there.

    Args:
        value, cost: predictions, as in :func:`greedy_path`, [N, A] and [A] or [N, A].
        reward: observed value of each row [N], costs not taken off.
        arm: arm given [N].
        propensity: probability of the arm that was given [N]; None for constant propensities (the
            same for every arm a unit may be chosen for).
        spent: observed cost of each row [N]; None to take the unit costs as true.
        weight: row weights [N].

    Raises:
        DataError: no row got its chosen arm, or no row is control.
    """
    points = _greedy_trial(value, cost, reward, arm, propensity, spent, weight).points()
    return PolicyCurve(points.depth[0], spend(points)[0], gain(points)[0])


def mcmv_aucc(
    value: ArrayLike,
    cost: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    spent: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    replicates: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """MCMV-AUCC: the area under the :func:`policy_curve` over all arms of all factors.

    Source: "Cross-Treatment Effect Estimation for Multi-Category, Multi-Valued Causal Inference via
    Dynamic Neural Masking" (XTNet), arXiv:2511.01641, section 5. Our reading where it is silent:
    an arm is one level of each factor; the cost of a combination is the sum of its levels' costs
    (give that as ``cost``); its value is that of the combination itself, so interactions are kept
    and not split over factors; each unit is taken once, with the arm of its best value / cost; and
    both axes are scaled by where the path ends, so that a random order of the same arms has 0.5.
    Since each model's path has its own end, compare choices of *arms* by
    :meth:`PolicyCurve.value_at` or an off-policy value, and the *order* by this area.

    Arguments as in :func:`policy_curve`; ``replicates`` above 0 adds a bootstrap interval.
    """
    trial = _greedy_trial(value, cost, reward, arm, propensity, spent, weight)
    return trial_intervals(
        trial, [aucc_core], replicates=replicates, confidence=confidence, seed=seed
    )[0]


def policy_values(
    value: ArrayLike,
    cost: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    budgets: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    spent: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """What the greedy path buys with each budget: the :func:`policy_curve` read at its costs.

    Args:
        value, cost, reward, arm, propensity, spent, weight: as in :func:`policy_curve`.
        budgets: incremental cost per unit of the population [B].
        replicates, confidence, seed: of the bootstrap, the same replicates for all budgets; 0 for
            estimates alone.

    Returns:
        Incremental value per unit at each budget, as :meth:`PolicyCurve.value_at` has it [B].
    """
    trial = _greedy_trial(value, cost, reward, arm, propensity, spent, weight)
    cores: list[Core] = [
        partial(_value_core, budget=budget) for budget in numbers("budgets", budgets)
    ]
    return trial_intervals(trial, cores, replicates=replicates, confidence=confidence, seed=seed)


def _value_core(points: Points, budget: float) -> Array:
    """See :func:`policy_values`, at one budget [R]."""
    columns = zip(points.depth, spend(points), gain(points))
    values = np.array([PolicyCurve(*column).value_at(budget) for column in columns])
    return np.where(points.defined, values, np.nan)


def _greedy_trial(
    value: ArrayLike,
    cost: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike | None,
    spent: ArrayLike | None,
    weight: ArrayLike | None,
) -> Trial:
    worth = numbers("value", value, (None, None))
    rows, arms = worth.shape
    given = arm_indices("arm", arm, rows, arms)
    chosen, rank = greedy_path(worth, cost)
    price = np.broadcast_to(np.asarray(cost, dtype=np.float64), worth.shape)
    trial = Trial(
        y=numbers("reward", reward, (rows,)),
        score=rank,
        treated=given == chosen,
        control=given == 0,
        weight=weights(weight, rows),
        inverse=inverse_propensities(propensity, rows),
        cost=None if spent is None else numbers("spent", spent, (rows,)),
        unit_cost=price[np.arange(rows), chosen] - price[:, 0],
    )
    both_groups(trial.treated, trial.control, trial.weight)
    return trial


def _ranks(first: Array, second: Array) -> Array:
    """Dense ranks by ``first``, then ``second``, ascending from 0."""
    order = np.lexsort((second, first))
    changed = (np.diff(second[order]) != 0) | (first[order][1:] != first[order][:-1])
    ranks = np.empty(len(order))
    ranks[order] = np.append(0, np.cumsum(changed))
    return ranks
