"""What a greedy spend by a model's predictions buys, at each budget: the policy curve with its band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from campaigns.objective import realised
from campaigns.spec import Campaign
from models.metrics import Interval, greedy_path, mcmv_aucc, policy_curve, policy_values

POINTS = 21  # from nobody to everybody
REPLICATES = 100  # of the band


@dataclass(frozen=True)
class PolicyPoints:
    """Incremental value per unit by incremental cost per unit, costs not taken off the value.

    Attributes:
        cost: From 0 to what treating everybody costs.
        value, low, high: What it buys, with its interval.
        aucc: Area with both axes scaled to end at 1 (MCMV-AUCC); a random order has 0.5.
    """

    cost: list[float]
    value: list[float]
    low: list[float]
    high: list[float]
    aucc: Interval


def policy_points(
    value: np.ndarray, cost: np.ndarray, rows: pd.DataFrame, campaign: Campaign, *, seed: int = 0
) -> PolicyPoints | None:
    """The policy curve on explored rows; None where it isn't defined.

    It isn't where no row got the arm that was chosen for it, where none is control, or where treating
    everybody costs nothing.

    Args:
        value: Predicted value of each arm over control, [N, A].
        cost: Cost of each arm over control, [A] or [N, A].
        rows: Explored rows of a decision frame, N.
        campaign: Gives what outcomes are worth.
        seed: Of the bootstrap.
    """
    outcomes = rows[list(campaign.outcomes)].to_numpy(dtype=np.float64)
    worth, paid = realised(outcomes, rows["arm"].to_numpy(), campaign)
    seen = np.isfinite(worth) & np.isfinite(paid)
    if not seen.any():
        return None
    cost = cost[seen] if cost.ndim == 2 else cost
    given = rows["arm"].to_numpy()[seen]
    if not ((given == greedy_path(value[seen], cost)[0]).any() and (given == 0).any()):
        return None
    log = value[seen], cost, worth[seen], given
    spent = paid[seen] if campaign.cost_outcome is not None else None
    propensity = rows["explored_propensity"].to_numpy()[seen]
    curve = policy_curve(*log, propensity=propensity, spent=spent)
    if not curve.cost[-1] > 0:
        return None
    budgets = np.linspace(0, curve.cost[-1], POINTS)
    confidence = campaign.gate.confidence
    found = policy_values(
        *log,
        budgets,
        propensity=propensity,
        spent=spent,
        replicates=REPLICATES,
        confidence=confidence,
        seed=seed,
    )
    area = mcmv_aucc(
        *log,
        propensity=propensity,
        spent=spent,
        replicates=REPLICATES,
        confidence=confidence,
        seed=seed,
    )
    return PolicyPoints(
        budgets.tolist(),
        [each.estimate for each in found],
        [each.low for each in found],
        [each.high for each in found],
        area,
    )
