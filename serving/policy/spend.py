"""Money: the cap on what exploration may cost, the budget's periods, and what to do when it is gone.

Every change that these make carries its reason, for the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import CampaignError, DataError, choices
from serving.policy.inputs import (
    Ints,
    amount,
    arm_count,
    arm_vector,
    cost_matrix,
    eligible_matrix,
    share,
)

Period = Literal["hour", "day", "week", "month", "total", "unit"]
KEYS: dict[str, str] = {
    "hour": "%Y-%m-%dT%H",
    "day": "%Y-%m-%d",
    "week": "%G-W%V",
    "month": "%Y-%m",
}


@dataclass(frozen=True)
class Epsilon:
    """The share to explore now, and why it differs from the campaign's ("" where it doesn't)."""

    epsilon: float
    reason: str


@dataclass(frozen=True, eq=False)
class Guarded:
    """Greedy arms [N] that the budget still pays for, the epsilon that goes with them, and why
    they differ from what was asked ("" where they don't)."""

    greedy_arm: Ints
    epsilon: float
    reason: str


def effective_epsilon(
    epsilon: float,
    exploration_spent: float,
    cap: float,
    expected_cost_per_explored: float,
    *,
    decisions: int = 1,
) -> Epsilon:
    """The exploration that the cap still allows.

    With what is left of the cap, n = left / expected_cost_per_explored more units can be explored:
    epsilon falls to n / decisions where that is less, and to 0 where n is below one. So the cap is
    overshot at most by what the last draws cost above their expectation.

    Args:
        epsilon: The campaign's, from 0 to 1.
        exploration_spent: What explored decisions cost so far in this period, >= 0.
        cap: Most that they may cost in the period, >= 0; infinity for no cap.
        expected_cost_per_explored: Mean cost of a random eligible arm, `expected_exploration_cost`.
        decisions: How many decisions are about to be made with this epsilon, >= 1.
    """
    asked = share("epsilon", epsilon)
    left = amount("cap", cap) - amount("exploration_spent", exploration_spent)
    each = amount("expected_cost_per_explored", expected_cost_per_explored)
    if each == 0 or asked == 0 or cap == np.inf:
        return Epsilon(asked, "")
    units = max(left, 0.0) / each
    allowed = units / max(decisions, 1) if units >= 1 else 0.0
    if allowed >= asked:
        return Epsilon(asked, "")
    state = "is used up" if allowed == 0 else "is nearly used up"
    return Epsilon(
        allowed,
        f"The exploration cap {state}: {exploration_spent:g} of {cap:g} spent, so epsilon is "
        f"{allowed:.4g} instead of {asked:g}.",
    )


def expected_exploration_cost(cost: ArrayLike, eligible: ArrayLike | None = None) -> float:
    """Mean cost of one explored decision: a uniform draw over the eligible arms.

    Args:
        cost: Cost of each arm, [A], or [N, A] to average over units; arm 0 costs 0.
        eligible: Which arms a unit may get, [N, A] bool; default: all.
    """
    count = len(np.atleast_2d(cost if eligible is None else eligible))
    if count == 0:
        return 0.0
    costs = cost_matrix(cost, (count, arm_count(cost)))
    allowed = eligible_matrix(eligible, (count, arm_count(cost)))
    return float(((costs * allowed).sum(axis=1) / allowed.sum(axis=1)).mean())


def period_key(per: str, when: datetime) -> str:
    """The name of the budget's period, in UTC: ``2026-02-03T17``, ``2026-02-03``, ``2026-W06``
    (ISO week, from Monday), ``2026-02`` or ``total``. A budget per unit is kept over all time.

    Raises:
        DataError: `when` has no time zone.
        CampaignError: Not a period that a budget can have.
    """
    if when.tzinfo is None:
        raise DataError(f"The time {when.isoformat()} has no time zone; give it one, such as UTC.")
    if per not in get_args(Period):
        raise CampaignError(f"budget.per is '{per}', but must be {choices(get_args(Period))}.")
    return when.astimezone(UTC).strftime(KEYS[per]) if per in KEYS else "total"


def guard_budget(
    greedy_arm: ArrayLike, cost: ArrayLike, *, spent: float, budget: float, epsilon: float
) -> Guarded:
    """Keep the next decisions within what is left of the period's budget.

    When it is used up, everyone gets control and nothing is explored (an explored arm costs money
    too). Before that, decisions are paid for in their order; from the first that no longer fits on,
    they get control; and epsilon falls to what is left if every explored unit got the dearest arm.

    Args:
        greedy_arm: What the policy would give, [N] int, in the order of the decisions.
        cost: Cost of each arm, [A] or [N, A].
        spent: Spent so far in this period, >= 0.
        budget: The period's budget (for a budget per unit: amount x units), >= 0.
        epsilon: The exploration that would be done, from 0 to 1.
    """
    greedy = arm_vector(greedy_arm, arm_count(cost), "greedy_arm")
    costs = cost_matrix(cost, (len(greedy), arm_count(cost)))
    left = amount("budget", budget) - amount("spent", spent)
    asked = share("epsilon", epsilon)
    if left <= 0:
        reason = f"The period's budget is used up: {spent:g} of {budget:g} spent."
        return Guarded(np.zeros_like(greedy), 0.0, reason)
    price = costs[np.arange(len(greedy)), greedy]
    paid = np.cumsum(price) <= left
    dearest = max(float(costs.max(initial=0.0)), 0.0)
    rate = effective_epsilon(asked, spent, budget, dearest, decisions=len(greedy)).epsilon
    kept = np.where(paid, greedy, 0)
    refused = int((kept != greedy).sum())
    reason = ""
    if refused or rate < asked:
        reason = (
            f"The period's budget is nearly used up: {spent:g} of {budget:g} spent, so {refused} of "
            f"{len(greedy)} decisions fall back to control and epsilon is {rate:.4g}."
        )
    return Guarded(kept, rate, reason)
