"""What a campaign wants, in numbers: the value and the cost of giving an arm.

A policy maximises ``sum(v - min_return * c)`` within ``sum(c) <= budget``, where for unit x and arm a
``v_a = sum_k value_k * (E[Y_k(a)|x] - E[Y_k(0)|x])`` and ``c_a`` is the arm's unit cost, or the
uplift of the outcome whose role is cost.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from campaigns.spec import Campaign


def value_and_cost(predicted: np.ndarray, campaign: Campaign) -> tuple[np.ndarray, np.ndarray]:
    """Value and cost of every arm, over control.

    Args:
        predicted: Expected potential outcomes, [N, A, K].
        campaign: Gives the outcomes' values and the arms' costs.

    Returns:
        Value [N, A] and cost [N, A] float64; arm 0 has 0 of both, and no cost is negative.
    """
    uplift = predicted - predicted[:, :1]
    value = uplift @ campaign.values
    return value, _cost(uplift, campaign)


def _cost(uplift: np.ndarray, campaign: Campaign) -> np.ndarray:
    if campaign.cost_outcome is not None:
        return np.maximum(uplift[:, :, campaign.cost_outcome], 0.0)
    return np.broadcast_to(campaign.arm_table.costs, uplift.shape[:2]).copy()


def realised(
    outcomes: np.ndarray, arm: np.ndarray, campaign: Campaign
) -> tuple[np.ndarray, np.ndarray]:
    """What the log shows: the worth of each row's outcomes [N] and what its arm cost [N].

    Args:
        outcomes: Observed outcomes [N, K]; an unobserved one (NaN) makes the row's figures NaN.
        arm: The arm that was given, [N].
        campaign: Gives values and costs.
    """
    worth = outcomes @ campaign.values
    if campaign.cost_outcome is not None:
        return worth, outcomes[:, campaign.cost_outcome]
    return worth, campaign.arm_table.costs[arm]


def arm_costs(frame: pd.DataFrame, campaign: Campaign) -> np.ndarray:
    """What giving each arm costs on average over control, [A] float64; 0 for control.

    The unit costs; or, where an outcome has role ``cost``, its mean over each arm's explored rows less
    its mean over control's (inverse-propensity weighted). An arm that nobody got keeps its unit cost.

    Args:
        frame: A decision frame.
        campaign: With features spelled out.
    """
    unit = campaign.arm_table.costs
    if campaign.cost_outcome is None:
        return unit
    rows = frame[frame["explored"].to_numpy(bool) & ~frame["holdout"].to_numpy(bool)]
    paid = rows[list(campaign.outcomes)[campaign.cost_outcome]].to_numpy(dtype=np.float64)
    weight = np.where(np.isfinite(paid), 1 / rows["explored_propensity"].to_numpy(), 0.0)
    arm, count = rows["arm"].to_numpy(), len(unit)
    mass = np.bincount(arm, weight, minlength=count)
    mean = np.bincount(arm, weight * np.nan_to_num(paid), minlength=count) / np.maximum(mass, 1e-12)
    if not mass[0]:
        return unit
    return np.where(mass > 0, np.maximum(mean - mean[0], 0.0), unit)


_PERIODS = {"hour": "h", "day": "D", "week": "W", "month": "M"}


def budget_per_unit(campaign: Campaign, decided_at: pd.Series) -> float:
    """What the budget pays for one decision, at the pace of a log.

    Only periods with decisions count: a log with a gap of a month had no budget in that month.

    Args:
        campaign: Gives the budget.
        decided_at: When the log's decisions were made, [N] (UTC).
    """
    budget = campaign.budget
    return budget.amount * (1 if budget.per == "unit" else share_of_period(budget.per, decided_at))


def share_of_period(per: str, decided_at: pd.Series) -> float:
    """Which share of a period one decision is, at the pace of a log; of all of it where per is "total"."""
    count = max(len(decided_at), 1)
    if per == "total":
        return 1 / count
    return decided_at.dt.tz_localize(None).dt.to_period(_PERIODS[per]).nunique() / count
