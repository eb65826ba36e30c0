"""Epsilon schedules: how much is explored in each cycle of the loop, cycle 1 being the first.

Where nothing drifts exploration is worth most at the start, and a rate that falls like 1 / t loses
least (Auer, Cesa-Bianchi & Fischer 2002, "Finite-time analysis of the multiarmed bandit problem",
section 3). Where the world drifts it must never end: hence the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from campaigns.errors import DataError
from serving.policy.inputs import Floats, share

MOST = 1e300  # stands for an infinite level, which times 0 is no number
Schedule: TypeAlias = "Callable[[int], float]"  # cycle, from 1 -> epsilon, from 0 to 1


def constant(epsilon: float) -> Schedule:
    """The same epsilon in every cycle."""
    return by_cycle([epsilon])


def decaying(start: float, *, floor: float, half: float) -> Schedule:
    """``epsilon_t = max(floor, start / (1 + (t - 1) / half))``: half of the start after `half` cycles.

    Args:
        start: Epsilon of cycle 1.
        floor: Never less than this, from 0 to `start`.
        half: Cycles after which half is left, > 0.

    Raises:
        DataError: A number out of its range.
    """
    first, least = share("start", start), share("floor", floor)
    if least > first:
        raise DataError(f"floor is {floor}, above the start, {start}; give at most {start}.")
    if not (np.isfinite(half) and half > 0):
        raise DataError(f"half must be a number of cycles above 0, not {half!r}.")
    return lambda cycle: max(least, first / (1 + (_cycle(cycle) - 1) / half))


def by_cycle(epsilons: Sequence[float]) -> Schedule:
    """One epsilon a cycle; after the last one it stays.

    Raises:
        DataError: There is none, or one outside [0, 1].
    """
    listed = [share(f"epsilons[{i}]", each) for i, each in enumerate(epsilons)]
    if not listed:
        raise DataError("epsilons is empty; give the epsilon of cycle 1 at least.")
    return lambda cycle: listed[min(_cycle(cycle), len(listed)) - 1]


def with_mean(schedule: Schedule, mean: float, *, cycles: int) -> Schedule:
    """The same shape, scaled so that epsilon averages `mean` over the first cycles.

    Schedules are compared at equal exploration: none exceeds 1, and what one cycle can't take goes
    to the others.

    Args:
        schedule: Gives the shape; positive in some cycle, unless `mean` is 0.
        mean: Of epsilon over the cycles, from 0 to 1.
        cycles: How many, >= 1. After them, the last one's epsilon stays.

    Raises:
        DataError: A number out of its range, or too many cycles without exploration for that mean.
    """
    asked = share("mean", mean)
    shape = np.array([schedule(cycle) for cycle in range(1, _cycle(cycles) + 1)])
    if asked > (shape > 0).mean():
        raise DataError(
            f"The schedule explores in {int((shape > 0).sum())} of {cycles} cycles, which can't "
            f"average {asked:g}; give a mean of at most {(shape > 0).mean():g}."
        )
    return by_cycle(water_fill(shape, np.ones(cycles), asked * cycles).tolist())


def water_fill(weight: Floats, room: Floats, total: float) -> Floats:
    """``min(s * weight, room)``, [n], which sums to `total`, or is all of the room that has weight."""
    level = fill_level(weight, room, total)
    return np.where(weight > 0, np.minimum(min(level, MOST) * weight, room), 0.0)


def fill_level(weight: Floats, room: Floats, total: float) -> float:
    """The s at which ``min(s * weight, room)`` sums to `total`; infinity where it never does.

    Args:
        weight: [n], >= 0.
        room: Most of each, [n], > 0.
        total: What to hand out, >= 0.
    """
    w, r = weight[weight > 0], room[weight > 0]
    if total <= 0:
        return 0.0
    full_at = r / w  # the s at which each is full
    order = np.argsort(full_at, kind="stable")
    full_at, w, r = full_at[order], w[order], r[order]
    before = np.cumsum(r) - r  # in those that are full earlier
    slope = np.cumsum(w[::-1])[::-1]  # of those that aren't
    at = int(np.searchsorted(before + slope * full_at, total * (1 - 1e-12)))
    return float((total - before[at]) / slope[at]) if at < len(w) else np.inf


def _cycle(cycle: int) -> int:
    if not isinstance(cycle, int | np.integer) or isinstance(cycle, bool) or cycle < 1:
        raise DataError(f"A cycle must be a whole number from 1, not {cycle!r}.")
    return int(cycle)
