"""The batch's allocation: within the budget alone, or within a campaign's other limits as well.

What is explored is drawn first, and what it uses of each limit is set aside; the rest is allocated over
everybody (the explored too: what they would get is part of their propensity). A least share, and a
guardrail, to which some arms give back, can't be set aside like that: where the decisions as drawn fall
short of one, it is asked that much more of the allocation, until they keep to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from campaigns.errors import DataError
from campaigns.limits import BUDGET
from serving.caps import ROUNDING, Cap
from serving.policy.allocation import Allocation, allocate
from serving.policy.limits import Limit, budget
from serving.policy.planning import allocate_within

ROUNDS = 8
MORE = 1.05  # of what is too much is asked back, so that it ends


@dataclass(frozen=True, eq=False)
class Allotment:
    """An allocation, and what it knows of limits beside the budget.

    Attributes:
        arm: The arm of each unit that isn't drawn, [N] int64.
        price: lambda of the budget.
        gap: How far from the best it can be at most.
        prices: Of the other limits, by name.
    """

    arm: np.ndarray
    price: float
    gap: float
    prices: dict[str, float] = field(default_factory=dict)

    @classmethod
    def within_budget(cls, found: Allocation) -> Allotment:
        return cls(found.arm, found.price, found.gap)


@dataclass(frozen=True, eq=False)
class Problem:
    """What is allocated: value and cost over control [N, A], eligible arms [N, A], and the limits.

    ``limits`` are those beside the budget, with what is left of each as their bound.
    """

    value: np.ndarray
    cost: np.ndarray
    eligible: np.ndarray
    budget: float
    min_return: float
    limits: tuple[Limit, ...] = ()

    def solve(self) -> Allotment:
        """The best allocation.

        Raises:
            DataError: None keeps to the limits.
        """
        if not self.limits:
            return Allotment.within_budget(
                allocate(
                    self.value,
                    self.cost,
                    self.budget,
                    min_return=self.min_return,
                    eligible=self.eligible,
                )
            )
        every = [budget(self.budget, self.cost, name=BUDGET), *self.limits]
        net = self.value - self.min_return * self.cost
        arm, plan = allocate_within(net, every, eligible=self.eligible)
        others = {limit.name: plan.prices[limit.name] for limit in self.limits}
        return Allotment(arm, plan.prices[BUDGET] + self.min_return, plan.gap, others)


def used(limit: Limit, arm: np.ndarray) -> np.ndarray:
    """What each unit uses, [N]."""
    use = np.broadcast_to(limit.use, (len(arm), np.shape(limit.use)[-1]))
    given: np.ndarray = use[np.arange(len(arm)), arm]
    return given


def left_of(limits: tuple[Limit, ...], caps: list[Cap]) -> tuple[Limit, ...]:
    """The limits with what is left of them as their bound; those that aren't counted as they are."""
    spent = {cap.limit.name: cap.used for cap in caps}
    return tuple(
        replace(limit, at_most=max(limit.at_most - spent[limit.name], 0.0))
        if limit.name in spent
        else limit
        for limit in limits
    )


def without_explored(problem: Problem, arm: np.ndarray, explored: np.ndarray) -> Problem:
    """The problem with what the explored units, [N] bool, use by their arms [N] set aside.

    Raises:
        DataError: That alone passes a limit.
    """
    limits = []
    for limit in problem.limits:
        taken = float(used(limit, arm)[explored].sum()) if _one_way(limit) else 0.0
        if taken > _roomy(limit):
            raise DataError(f"{limit.name!r}: what is explored would pass it alone")
        limits.append(replace(limit, at_most=max(limit.at_most - taken, 0.0)) if taken else limit)
    cost = float(problem.cost[np.arange(len(arm)), arm][explored].sum())
    return replace(problem, budget=max(problem.budget - cost, 0.0), limits=tuple(limits))


def solve(problem: Problem, whole: Problem, draw: Callable[[np.ndarray], np.ndarray]) -> Allotment:
    """Allocate, so that what is then drawn keeps to the budget and every limit.

    Args:
        problem: What to begin with, such as what is explored set aside.
        whole: With the budget and the limits that the decisions have to keep to.
        draw: From the allocation's arms [N] to those given, [N].

    Raises:
        DataError: No allocation keeps to the limits.
    """
    rows = np.arange(len(whole.value))
    for _ in range(ROUNDS):
        found = problem.solve()
        given = draw(found.arm)
        over = float(whole.cost[rows, given].sum()) - whole.budget * (1 + ROUNDING)
        beyond = [
            max(float(used(limit, given).sum()) - _roomy(limit), 0.0) for limit in whole.limits
        ]
        if over <= 0 and not any(beyond):
            return found
        problem = replace(
            problem,
            budget=max(problem.budget - MORE * max(over, 0.0), 0.0),
            limits=tuple(
                replace(limit, at_most=limit.at_most - MORE * more)
                for limit, more in zip(problem.limits, beyond)
            ),
        )
    names = [BUDGET] * (over > 0)
    names += [limit.name for limit, more in zip(whole.limits, beyond) if more]
    raise DataError(
        f"limits: {', '.join(names)}: can't be kept beside what is explored; loosen it, or lower "
        "exploration.epsilon"
    )


def _one_way(limit: Limit) -> bool:
    """No arm gives anything back."""
    return bool((limit.use >= 0).all())


def _roomy(limit: Limit) -> float:
    return limit.at_most + ROUNDING * max(abs(limit.at_most), 1.0)
