"""What an allocation has to keep to: each limit is a sum over units that must not pass a number.

A limit gives every (unit, arm) a use, and sum(use of the given arms) <= at_most. So a budget, one
factor's budget, one period's budget, a stock, a segment's minimum share and a guardrail are one thing
to the solver, and each has a price: the value that one more unit of `at_most` would bring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.inputs import Floats, Ints, amount, cost_matrix, numbers, share


@dataclass(frozen=True, eq=False)
class Limit:
    """sum over units of use[unit, arm given] <= at_most.

    Attributes:
        name: What reports and errors call it.
        use: [A], the same for every unit, or [n, A]; finite.
        at_most: Any number; infinity for no limit.
    """

    name: str
    use: Floats
    at_most: float

    def rows(self, part: slice) -> Limit:
        """The same limit for some of the units."""
        return Limit(self.name, self.use[part] if self.use.ndim == 2 else self.use, self.at_most)

    def rows_at(self, rows: Ints) -> Limit:
        """The same for the units with these row numbers, [m]."""
        return Limit(self.name, self.use[rows] if self.use.ndim == 2 else self.use, self.at_most)


def budget(
    most: float, cost: ArrayLike, *, name: str = "budget", units: ArrayLike | None = None
) -> Limit:
    """sum(cost) <= most, over all units, or over some: a period's budget, a region's.

    One factor's budget is this with what the arm's level of that factor costs.

    Args:
        most: Most that may be spent, >= 0; 0 gives what costs nothing.
        cost: Cost of each arm over control, [A] or [n, A]; arm 0 costs 0.
        name: Of the limit.
        units: Whose costs count, [n] bool; default: everybody's.

    Raises:
        DataError: `most` is negative or NaN; a cost isn't finite; control costs something.
    """
    limit, costs = amount(name, most), numbers(f"cost of {name!r}", cost)
    if costs.ndim == 2:
        costs = cost_matrix(costs, (costs.shape[0], costs.shape[1]))
    elif costs.ndim == 1 and len(costs):
        costs = cost_matrix(costs, (1, len(costs)))[0]
    else:
        raise DataError(f"cost of {name!r} must have the shape [arms] or [units, arms].")
    return Limit(name, _only(units, costs, name), limit)


def stock(pieces: float, arm: int, arms: int, *, name: str) -> Limit:
    """At most so many units get this arm (one of `arms`, not control, which never runs out)."""
    if not 1 <= arm < arms:
        raise DataError(f"{name!r}: arm {arm} can't have a stock; arms 1 to {arms - 1} can.")
    return Limit(name, (np.arange(arms) == arm).astype(np.float64), np.floor(amount(name, pieces)))


def least_share(
    least: float, units: ArrayLike, arms: int, *, name: str, given: list[int] | None = None
) -> Limit:
    """At least this share of a segment gets one of the arms `given` (default: any but control).

    Written as sum over the segment of (least - [arm is given]) <= 0, so that the segment's size
    needn't be known; one more unit of `at_most` is one more unit of it without treatment. The share
    is rounded down to a multiple of 2**-26, so that such sums are exact.

    Args:
        least: From 0 to 1.
        units: Who is in the segment, [n] bool.
        arms: A.
        name: Of the limit.
        given: Which arms count.
    """
    wanted = np.isin(np.arange(arms), range(1, arms) if given is None else given)
    exact = np.floor(share(name, least) * 2.0**26) / 2.0**26
    return Limit(name, _only(units, exact - wanted, name), 0.0)


def guardrail(most: float, effect: ArrayLike, *, name: str) -> Limit:
    """An outcome must not fall by more than `most` in total: sum(effect) >= -most.

    Args:
        most: >= 0, in the outcome's unit, over all units.
        effect: The outcome's uplift of each arm over control, [n, A] (or [A]); 0 for control.
        name: Of the limit.
    """
    return Limit(name, -numbers(f"effect of {name!r}", effect), amount(name, most))


def _only(units: ArrayLike | None, use: Floats, name: str) -> Floats:
    if units is None:
        return use
    inside: Any = np.asarray(units)
    if inside.dtype != np.bool_ or inside.ndim != 1:
        raise DataError(f"{name!r}: units must be boolean with the shape [units].")
    if use.ndim == 2 and len(use) != len(inside):
        raise DataError(f"{name!r}: units has {len(inside)} entries for {len(use)} rows of costs.")
    return np.where(inside[:, None], use, 0.0)
