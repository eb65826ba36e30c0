"""What the members of an ensemble would each give, and how far they disagree.

Member m's best arm for unit x at the price lambda is ``argmax_a v_m(a | x) - lambda * c(a | x)``. The
share of members whose best arm is a, b(a | x), estimates the probability that a is the best within
the budget. Two members, drawn at random with replacement, disagree with probability
``d(x) = 1 - sum_a b(a | x)^2``: from 0 to 1 - 1/A, large near the boundaries of the policy and
wherever effects are little known (query by committee: Seung, Opper & Sompolinsky 1992).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.allocation import decide
from serving.policy.inputs import Bools, Floats, Ints, numbers


def choices_of(
    value: ArrayLike, cost: ArrayLike, price: float, eligible: ArrayLike | None = None
) -> Ints:
    """The arm that each member would give, [M, N].

    Args:
        value: Each member's value of each arm over control, [M, N, A]; column 0 (control) is 0.
        cost: Cost of each arm over control, [A], [N, A] or, a member's own, [M, N, A].
        price: lambda, one for all members: that of the budget.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.

    Raises:
        DataError: A wrong shape or number.
    """
    values, costs = numbers("value", value), numbers("cost", cost)
    if values.ndim != 3 or not len(values):
        raise DataError(
            f"value must have the shape [members, units, arms], not {list(values.shape)}."
        )
    if costs.ndim == 3 and costs.shape != values.shape:
        raise DataError(
            f"cost has the shape {list(costs.shape)}; with members it must be {list(values.shape)}."
        )
    return np.stack(
        [
            decide(own, costs[m] if costs.ndim == 3 else costs, price, eligible)
            for m, own in enumerate(values)
        ]
    )


def vote_shares(chosen: Ints, arms: int) -> Floats:
    """b: the share of the members that give each arm, [M, N] -> [N, A]; rows sum to 1."""
    return np.stack([(chosen == arm).mean(axis=0) for arm in range(arms)], axis=1)


def disagreement(votes: Floats) -> Floats:
    """d: the probability that two members disagree, [N, A] -> [N] in [0, 1)."""
    return np.maximum(1.0 - (votes**2).sum(axis=1), 0.0)


def disputed(votes: Floats, eligible: Bools) -> Floats:
    """r: what one of two members gives who disagree, ``b(a) * (1 - b(a)) / d``; [N, A], rows sum to 1.

    Both sides of a dispute get draws: with two contenders, half each, however the votes lean.
    Where all members agree it is uniform over the eligible arms.

    Args:
        votes: b, [N, A].
        eligible: Which arms a unit may get, [N, A] bool; control among them.
    """
    split = votes * (1.0 - votes)
    total = split.sum(axis=1, keepdims=True)
    even = eligible / eligible.sum(axis=1, keepdims=True)
    return np.where(total > 1e-12, split / np.maximum(total, 1e-12), even)
