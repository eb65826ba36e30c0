"""The prices that a model serves at: of its campaign's budget, and of the other limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd

from campaigns.limits import counted
from campaigns.objective import share_of_period, value_and_cost
from campaigns.spec import Campaign
from serving.allotment import Allotment, Problem
from serving.assessment import feature_columns
from serving.caps import net_of_limits
from serving.evaluation import HeldOut
from serving.exploring import find_dial, votes_of
from serving.limits import may_get, period_of, sums
from serving.policy.limits import Limit


def online_prices(
    predicted: np.ndarray, log: HeldOut, campaign: Campaign, decided_at: pd.Series
) -> tuple[float, dict[str, float]]:
    """lambda, and each other limit's price, for units that come one by one.

    They are those of the held-out rows' allocation within the budget and the limits, at the pace of the
    log. What exploration costs, and what it uses of a limit, is taken off before.

    Args:
        predicted: A model's predictions on the held-out rows, [N, A, K].
        log: The held-out rows.
        campaign: Gives budget, limits and exploration.
        decided_at: When all of the log's decisions were made, [M] (UTC).

    Raises:
        DataError: No allocation keeps to the limits.
    """
    rules, count = campaign.exploration, len(log.rows)
    value, cost = value_and_cost(predicted, campaign)
    epsilon = rules.epsilon * (1 - rules.holdout)
    random = min(epsilon * float(cost.mean()), rules.max_spend_share * log.budget_per_unit)
    explored = random / float(cost.mean()) if cost.any() else epsilon
    chosen = max(1 - explored - rules.holdout, 1e-9)
    left = max(log.budget_per_unit - random, 0.0) / chosen
    known = feature_columns(log.rows, campaign)
    periods = {one.title: period_of(one, campaign) for one in counted(campaign.limits)}

    def at_its_pace(limit: Limit) -> Limit:
        if limit.name not in periods:  # a share, whatever their number
            return limit
        pace = limit.at_most * share_of_period(periods[limit.name], decided_at)
        use = np.broadcast_to(limit.use, cost.shape)
        most = max(pace - explored * float(use.mean()), 0.0) / chosen
        return Limit(limit.name, limit.use, most * count)

    limits = tuple(at_its_pace(limit) for limit in sums(campaign, known, cost, predicted))
    found: Allotment = Problem(
        value,
        cost,
        may_get(campaign, known, count),
        left * count,
        campaign.budget.min_return,
        limits,
    ).solve()
    return float(found.price), found.prices


def online_dial(
    members: np.ndarray | None,
    price: float,
    limit_prices: Mapping[str, float],
    log: HeldOut,
    campaign: Campaign,
) -> dict[str, float] | None:
    """How directed draws follow from the members' disagreement about the held-out rows; None: not asked.

    Args:
        members: Their predictions on those rows, [M, N, A, K]; None of a model without.
        price, limit_prices: Those of :func:`online_prices`.
        log: The held-out rows.
        campaign: Gives exploration and limits.
    """
    rules = campaign.exploration
    if rules.strategy != "directed" or members is None:
        return None
    known = feature_columns(log.rows, campaign)
    mean = members.mean(axis=0)
    cost = value_and_cost(mean, campaign)[1]
    limits = sums(campaign, known, cost, mean)
    values = [
        net_of_limits(value_and_cost(each, campaign)[0], limits, limit_prices) for each in members
    ]
    eligible = may_get(campaign, known, len(log.rows))
    votes = votes_of(np.stack(values), cost, price, eligible)
    return asdict(find_dial(rules, votes, rules.epsilon))
