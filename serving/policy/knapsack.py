"""The relaxed multiple-choice knapsack, solved exactly, and the greedy fill of what it leaves.

Everywhere `net` [N, A] is the value to maximise, `cost` [N, A], `allowed` [N, A] bool; nothing is
checked here (`allocation` does).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.policy.inputs import Bools, Floats, Ints

STEEPEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The dual's solution: the arms that every unit strictly prefers at the price, [N] int64;
    the price, >= 0; the upper bound on the value."""

    arm: Ints
    price: float
    bound: float


@dataclass(frozen=True, eq=False)
class Steps:
    """Moves of units (row numbers) to an arm, for so much more cost, at value / cost = slope."""

    unit: Ints
    arm: Ints
    slope: Floats
    extra: Floats


def relax(net: Floats, cost: Floats, allowed: Bools, budget: float) -> Relaxed:
    """The exact price at which the budget runs out.

    All steps steeper than the price are taken; those at the price itself are left to `fill`. The
    bound is the dual function there, sum_x max_a (v - lambda c) + lambda * budget.
    """
    rows = np.arange(len(net))
    start = cheapest(net, cost, allowed)
    levels = _hull(net, cost, allowed, start)
    slope = np.concatenate([level.slope for level in levels])
    extra = np.concatenate([level.extra for level in levels])
    order = np.argsort(-slope)
    spend = cost[rows, start].sum() + np.cumsum(extra[order], dtype=np.longdouble)
    affordable = int(np.searchsorted(spend, budget, side="right"))
    price = float(slope[order[affordable]]) if affordable < len(order) else 0.0
    arm = start
    for level in levels:  # a unit's slopes fall from level to level, so it takes the first few
        taken = level.slope > price
        arm[level.unit[taken]] = level.arm[taken]
    bound = float(net[rows, arm].sum())
    if price > 0:
        bound += price * (budget - float(cost[rows, arm].sum()))
    return Relaxed(arm, price, bound)


def fill(net: Floats, cost: Floats, allowed: Bools, arm: Ints, budget: float) -> Ints:
    """Spend what is left on the steepest moves that fit, ties to the smaller; a new [N] of arms.

    Each round takes every unit's best move that fits, sorts them, and makes as many as fit
    together: the same as trying all moves in order of slope, skipping what doesn't fit.
    """
    arm = arm.copy()
    rows = np.arange(len(net))
    left = budget - float(cost[rows, arm].sum())
    while len(rows) and left >= 0:
        moves = _climb(net, cost, allowed, rows, arm, most=left)
        if not len(moves.unit):
            break
        order = np.lexsort((moves.extra, -moves.slope))
        fitting = np.searchsorted(np.cumsum(moves.extra[order]), left, side="right")
        order = order[: max(int(fitting), 1)]
        arm[moves.unit[order]] = moves.arm[order]
        left -= float(moves.extra[order].sum())
        rows = moves.unit  # what doesn't fit now never will
    return arm


def cheapest(net: Floats, cost: Floats, allowed: Bools) -> Ints:
    """Where each unit stands at an infinite price: its cheapest arm, the best of those, [N]."""
    masked = np.where(allowed, cost, np.inf)
    cheapest = masked == masked.min(axis=1, keepdims=True)
    return np.where(cheapest, net, -np.inf).argmax(axis=1)


def _hull(net: Floats, cost: Floats, allowed: Bools, start: Ints) -> list[Steps]:
    """The steps up each unit's hull, one list entry a level (at most A)."""
    levels: list[Steps] = []
    rows, at = np.arange(len(net)), start.copy()
    cap = np.full(len(net), STEEPEST)
    while True:
        steps = _climb(net, cost, allowed, rows, at)
        # concave but for rounding: a step is never steeper than the one before it
        slope = np.minimum(steps.slope, cap[steps.unit])
        levels.append(Steps(steps.unit, steps.arm, slope, steps.extra))
        if not len(steps.unit):
            return levels
        rows = steps.unit
        at[rows], cap[rows] = steps.arm, slope


def _climb(
    net: Floats, cost: Floats, allowed: Bools, rows: Ints, at: Ints, most: float = np.inf
) -> Steps:
    """The steepest move up of each of these rows, from the arm where it is `at` [N], that costs
    no less and at most `most` more; rows without one are left out."""
    here = at[rows]
    value_here, cost_here = net[rows, here], cost[rows, here]
    best = Steps(rows, here.copy(), np.zeros(len(rows)), np.zeros(len(rows)))
    for arm in range(net.shape[1]):
        gain, extra = net[rows, arm] - value_here, cost[rows, arm] - cost_here
        up = allowed[rows, arm] & (gain > 0) & (extra >= 0) & (extra <= most)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slope = np.minimum(gain / extra, STEEPEST)
        up &= slope > best.slope
        best.arm[up], best.slope[up], best.extra[up] = arm, slope[up], extra[up]
    found = np.flatnonzero(best.slope > 0)
    return Steps(rows[found], best.arm[found], best.slope[found], best.extra[found])
