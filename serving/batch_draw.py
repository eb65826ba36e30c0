"""What a batch gives: an allocation, and what is drawn in place of it, within budget and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import numpy as np

from campaigns.errors import DataError
from campaigns.spec import Campaign
from serving.allotment import Allotment, Problem, left_of, solve, without_explored
from serving.assessment import Assessed
from serving.caps import find_caps, shut
from serving.decider import Policy, budget_for, epoch_key, explorer_of
from serving.exploring import Explorer, asked_epsilon
from serving.ledger import Ledger
from serving.policy.exploration import held_out
from serving.policy.mixture import Drawn
from serving.policy.spend import effective_epsilon

LEAST = 1e-3  # an epsilon that is lowered no more, but given up


@dataclass(frozen=True, eq=False)
class BatchDraw:
    """What was drawn for N units.

    Attributes:
        drawn: The arms, with their propensities.
        allotment: The allocation behind them.
        epsilon: The probability that a unit's arm was drawn, [N].
        reason: Why that isn't what the campaign asks, or "".
        away: Who was drawn away from the greedy arm outside the trial, [N] bool.
    """

    drawn: Drawn
    allotment: Allotment
    epsilon: np.ndarray
    reason: str
    away: np.ndarray


def draw_batch(
    assessed: Assessed, campaign: Campaign, ledger: Ledger, limit: float, now: datetime
) -> BatchDraw:
    """The arms, the allocation behind them, and how much was explored and why; nothing is recorded.

    Args:
        assessed: N units.
        campaign: Gives the rules of exploration, the budget and the limits.
        ledger: What the period has seen so far.
        limit: Most that the arms may cost, >= 0.
        now: The moment of the decisions, UTC.

    Raises:
        DataError: The limits can't be kept.
    """
    rules, cost = campaign.exploration, assessed.cost
    ids, epoch = [unit.unit_id for unit in assessed.units], epoch_key(campaign, now)
    caps = find_caps(assessed.limits, campaign, ledger, now)
    allowed, _ = shut(assessed.eligible, caps)
    held = held_out(ids, salt=rules.salt, holdout=rules.holdout)
    # Held-out units get control whatever the allocation says: their share is for the others.
    open_arms = allowed & (~held[:, None] | (np.arange(allowed.shape[1]) == 0))
    limits = left_of(assessed.limits, caps)
    least = campaign.budget.min_return
    problem = Problem(assessed.value, cost, open_arms, limit, least, limits)

    explorer = _explorer(
        assessed, allowed, problem, campaign, asked_epsilon(campaign, ledger.began, now)
    )

    def draw(epsilon: float, greedy: np.ndarray) -> Drawn:
        return explorer.draw(greedy, epsilon, ids, epoch)

    cap = rules.max_spend_share * budget_for(campaign, ledger, len(ids))
    exploring = effective_epsilon(
        explorer.epsilon,
        ledger.exploration_spend,
        cap,
        explorer.expected_cost(),
        decisions=max(len(ids), 1),
    )
    epsilon, reason = exploring.epsilon, exploring.reason
    nobody = np.zeros(len(ids), dtype=np.int64)
    while True:
        first = draw(epsilon, nobody)
        explored_cost = float(cost[np.arange(len(ids)), first.arm][first.explored].sum())
        if explored_cost > limit:
            epsilon, reason = 0.0, f"The budget ({limit:g}) doesn't pay for exploration."
            continue
        try:
            rest = without_explored(problem, first.arm, first.explored)
            found = solve(rest, problem, partial(_arms, draw, epsilon))
        except DataError:
            if not epsilon:
                raise
            epsilon = epsilon / 4 if epsilon > LEAST else 0.0
            reason = f"Budget and limits leave less room for exploration: epsilon is {epsilon:.4g}."
            continue
        given = draw(epsilon, found.arm)
        return BatchDraw(
            given,
            found,
            explorer.epsilons(epsilon),
            reason,
            given.directed & (given.arm != found.arm),
        )


def _explorer(
    assessed: Assessed, allowed: np.ndarray, problem: Problem, campaign: Campaign, epsilon: float
) -> Explorer:
    """How the table is explored: members vote at the prices of an allocation without exploration."""
    policy = Policy(campaign, None, 0.0)
    some = replace(assessed, eligible=allowed)
    if assessed.members is None:
        return explorer_of(some, policy, {}, 0.0, epsilon)
    greedy = problem.solve()
    return explorer_of(some, policy, greedy.prices, greedy.price, epsilon, own_dial=True)


def _arms(
    draw: Callable[[float, np.ndarray], Drawn], epsilon: float, greedy: np.ndarray
) -> np.ndarray:
    return draw(epsilon, greedy).arm
