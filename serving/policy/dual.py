"""Several limits: the prices that minimise the Lagrangian dual, by cutting planes within a box.

With a price p_j on the use of each limit j, unit x takes argmax_a v_a - sum_j p_j u_ja. The dual

    g(p) = sum_x max_a (v_a - sum_j p_j u_ja) + sum_j p_j b_j,    p >= 0,

is convex, and no allocation within the limits has more value than g at any p. A pass over the units
gives g and a cut: the allocation's value V and uses U, with g(q) >= V + sum_j q_j (b_j - U_j) for all
q. The next prices minimise the largest cut within a box around the best prices so far, which grows
where it is in the way and shrinks where the cuts were too hopeful (the boxstep method: Marsten, Hogan
& Blankenship 1975, Operations Research 23(3)). When the cuts' minimum meets g, the prices are the best.

The dual weights of the cuts in that linear programme sum to 1, and the allocations mixed by them keep
to every limit at a value that equals the cuts' minimum (Dantzig & Wolfe 1960). So each unit takes the
allocation that its lot points at: right on average, and off by the chance of lots, which `core` mends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from scipy.optimize import linprog

from campaigns.errors import DataError
from serving.policy.inputs import Floats, Ints
from serving.policy.lots import BITS, lots
from serving.policy.portions import Columns

PASSES = 300
ENOUGH = 1e-7  # the cuts' minimum is this close to the dual, as a share of it
NEAR = 0.02  # the first box around prices that a sample has, where the scale is the price of everything
WEIGHTLESS = 1e-9  # cuts of less weight are left out of the mix
TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}

Evaluate = Callable[[Floats], Floats]


@dataclass(frozen=True, eq=False)
class Mix:
    """Several price vectors, [t, m]; a unit goes by the one that its lot points at.

    `until` [t] are the lots at which each one's part ends.
    """

    prices: Floats
    until: Ints

    def arms(self, table: Columns) -> Ints:
        """The arm of each unit, [n] int64."""
        arm = best_arms(table, self.prices[0])
        if len(self.until) > 1:
            turn = np.searchsorted(self.until[:-1], lots(table.unit), side="right")
            for number in range(1, len(self.until)):
                mine = turn == number
                arm[mine] = best_arms(table, self.prices[number])[mine]
        return arm


@dataclass(frozen=True, eq=False)
class Extent:
    """How large things can be: value and uses if everything added up, and the least value there is."""

    value: float
    uses: Floats
    least_value: float


def scores(table: Columns, prices: Floats, arm: int) -> Floats:
    """v - sum_j p_j u_j of one arm, [n]; minus infinity where a unit can't get it."""
    score = table.net[arm].copy()
    for price, use in zip(prices, table.uses):
        if price:
            score -= price * use[arm]
    if table.allowed is not None:
        score[~table.allowed[arm]] = -np.inf
    return score


def best_arms(table: Columns, prices: Floats) -> Ints:
    """argmax of the scores, the lower arm where they tie, [n] int64."""
    best, arm = scores(table, prices, 0), np.zeros(len(table), dtype=np.int64)
    for other in range(1, len(table.net)):
        score = scores(table, prices, other)
        arm[score > best] = other
        np.maximum(best, score, out=best)
    return arm


def minimise(
    evaluate: Evaluate, names: tuple[str, ...], bound: Floats, extent: Extent, near: Floats
) -> tuple[Mix, Floats]:
    """The mix of allocations at the best prices, and these prices, [m].

    Args:
        evaluate: Prices [m] to the value and the uses of the best arms there, [1 + m].
        names: Of the limits.
        bound: Their bounds, [m], finite.
        extent: Scales prices, and says when limits contradict each other.
        near: Where to begin, [m]; zeros where nothing is known.

    Raises:
        DataError: No allocation keeps to all limits.
    """
    worth = extent.value or 1.0
    reach = np.where(extent.uses > 0, extent.uses, 1.0)
    cuts: list[Floats] = []  # value and slack, in units of `worth` and `reach`
    points: list[Floats] = []

    def cut(at: Floats) -> float:
        found = evaluate(at * worth / reach)
        cuts.append(np.r_[found[0] / worth, (bound - found[1:]) / reach])
        points.append(at)
        return float(cuts[-1][0] + at @ cuts[-1][1:])

    best, box = near * reach / worth, NEAR if near.any() else 1.0
    height, weights = cut(best), np.ones(1)
    if not len(bound):
        return _mix(np.zeros((1, 0)), weights), best
    for _ in range(PASSES):
        lowest, at, weights = _lowest(np.array(cuts), best, box)
        free = bool((np.abs(at - best) < box * (1 - 1e-6)).all())
        hoped = height - lowest
        if hoped <= ENOUGH * max(abs(height), 1e-3):
            if free:
                break
            box *= 4
            continue
        found = cut(at)
        if found < extent.least_value / worth - 1e-9:
            _contradiction(names, at)
        box *= 2 if found <= height - 0.5 * hoped else 1 if found < height else 0.5
        if found < height:
            best, height = at, found
    else:
        _, _, weights = _lowest(np.array(cuts), best, np.inf)
    return _mix(np.array(points) * worth / reach, weights), best * worth / reach


def _lowest(cuts: Floats, around: Floats, box: float) -> tuple[float, Floats, Floats]:
    """The minimum of the largest cut within the box, where it lies, and the cuts' weights."""
    found = linprog(
        np.r_[np.zeros(len(around)), 1.0],
        A_ub=np.c_[cuts[:, 1:], -np.ones(len(cuts))],
        b_ub=-cuts[:, 0],
        bounds=[*zip(np.maximum(around - box, 0.0), around + box), (None, None)],
        method="highs",
        options=TIGHT,
    )
    if found.status != 0:
        raise RuntimeError(f"the cuts' linear programme failed: {found.message}")
    return float(found.fun), found.x[:-1], np.maximum(-found.ineqlin.marginals, 0.0)


def _mix(prices: Floats, weights: Floats) -> Mix:
    kept = np.flatnonzero(weights > WEIGHTLESS * weights.sum())
    share = np.cumsum(weights[kept])
    return Mix(prices[kept], np.rint(share / share[-1] * 2.0**BITS).astype(np.int64))


def _contradiction(names: tuple[str, ...], at: Floats) -> NoReturn:
    guilty = [repr(name) for name, price in zip(names, at) if price > 1e-6 * at.max()]
    together = " and ".join([", ".join(guilty[:-1]), guilty[-1]]) if guilty[1:] else guilty[0]
    raise DataError(
        f"No allocation keeps to all limits: {together} can't be kept together; loosen one of them, "
        "or check who is eligible."
    )
