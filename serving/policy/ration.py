"""A policy that would overspend, kept to a budget by a lottery.

Comparing "everybody gets the best arm" or "random" with an allocation is fair only at the same
budget: so the policy is given to a share of the units, drawn by a keyed hash, and to the rest control.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.allocation import ROUNDING
from serving.policy.hashing import ARM, RATION, Units, uniform
from serving.policy.inputs import (
    Floats,
    Ints,
    amount,
    arm_count,
    arm_vector,
    cost_matrix,
    numbers,
    same_length,
)


@dataclass(frozen=True, eq=False)
class Ration:
    """A rationed policy.

    Attributes:
        arm: One draw of it, [N] int64; its cost is within the budget.
        probabilities: Its action probabilities, [N, A]; their expected cost is within the budget.
        share: The share of units that the policy decides on, from 0 to 1; the rest get control.
        cost: What `arm` costs.
    """

    arm: Ints
    probabilities: Floats
    share: float
    cost: float


def ration(
    arm: ArrayLike,
    cost: ArrayLike,
    budget: float,
    *,
    units: Units | None = None,
    salt: str = "",
    epoch: str | int = "",
) -> Ration:
    """Give a policy to as many units as the budget pays for, drawn by lot.

    Args:
        arm: The policy: the arm of each unit, [N] int, or its action probabilities, [N, A] float.
        cost: Cost of each arm, [A] or [N, A], not negative; arm 0 (control) costs 0.
        budget: Most that may be spent, >= 0; infinity for no limit.
        units: The units' ids, [N]; default: the row numbers.
        salt: Key of the lottery.
        epoch: Another epoch draws anew.

    Raises:
        DataError: Wrong shapes, negative costs, a negative or NaN budget.
    """
    limit = amount("budget", budget)
    policy = _probabilities(arm, arm_count(cost))
    costs = cost_matrix(cost, (policy.shape[0], policy.shape[1]))
    if (costs < 0).any():
        raise DataError(f"ration needs costs that are not negative, not {costs.min()}.")
    ids = np.arange(len(policy)) if units is None else units
    same_length("units", ids, len(policy))

    expected = float((policy * costs).sum())
    share = min(1.0, limit / expected) if expected > 0 else 1.0
    probabilities = share * policy
    probabilities[:, 0] += 1 - share

    drawn = _draw(policy, uniform(ids, salt=salt, epoch=epoch, purpose=f"{RATION} {ARM}"))
    price = costs[np.arange(len(drawn)), drawn]
    order = np.argsort(uniform(ids, salt=salt, epoch=epoch, purpose=RATION), kind="stable")
    spend = np.cumsum(price[order])
    lucky = order[: np.searchsorted(spend, limit * (1 + ROUNDING), side="right")]
    given = np.zeros(len(drawn), dtype=np.int64)
    given[lucky] = drawn[lucky]
    return Ration(given, probabilities, share, min(float(price[lucky].sum()), limit))


def _probabilities(arm: ArrayLike, arms: int) -> Floats:
    given = np.asarray(arm)
    if given.ndim != 2:
        return np.eye(arms)[arm_vector(arm, arms)]
    policy = numbers("action probabilities", given)
    if (policy < 0).any() or not np.allclose(policy.sum(axis=1), 1.0):
        raise DataError(
            "Action probabilities must not be negative and must sum to 1 for each unit."
        )
    return policy


def _draw(policy: Floats, uniforms: Floats) -> Ints:
    below = policy.cumsum(axis=1)[:, :-1] <= uniforms[:, None]
    return below.sum(axis=1)
