"""The flywheel's players and what is true of them, how policies are paid, and what the loops log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from campaigns.worlds import World
from campaigns.worlds.base import START
from serving.policy.allocation import allocate
from serving.policy.exploration import Draw
from serving.policy.ration import ration


@dataclass(frozen=True, eq=False)
class Week:
    """The players of a week, and what is true of them.

    Attributes:
        day: The world's.
        units: Ids and features, N rows.
        value, cost: True ones of every arm over control, [N, A].
        budget: What the week may cost.
    """

    day: int
    units: pd.DataFrame
    value: np.ndarray
    cost: np.ndarray
    budget: float


def players(simulated: World, campaign: Campaign, count: int, day: int, seed: int) -> Week:
    """The first ``count`` players of population ``seed``, as they are on ``day``."""
    units = simulated.units(count, seed=seed, day=day)
    columns = [simulated.outcomes.index(name) for name in campaign.outcomes]
    truth = simulated.truth(units, day=day)[:, :, columns]
    value, cost = value_and_cost(truth, campaign)
    return Week(day, units, value, cost, campaign.budget.amount * len(units))


def by_lot(policy: np.ndarray, week: Week, seed: int) -> np.ndarray:
    """A policy that is the same for all, [A], given to as many as the budget pays for; arms [N]."""
    chances = np.broadcast_to(policy, week.cost.shape)
    return ration(chances, week.cost, week.budget, salt=str(seed), epoch=week.day).arm


def best_possible(week: Week, campaign: Campaign) -> np.ndarray:
    """The allocation by the true effects, [N]."""
    return allocate(week.value, week.cost, week.budget, min_return=campaign.budget.min_return).arm


def account(arm: np.ndarray, week: Week) -> dict[str, float]:
    """What arms [N] are truly worth over control, what they cost, and what that leaves."""
    value, cost = float(of_arm(week.value, arm).sum()), float(of_arm(week.cost, arm).sum())
    return {"value": value, "cost": cost, "net": value - cost, "budget": week.budget}


def logged(drawn: Draw, week: Week, simulated: World, seed: int) -> pd.DataFrame:
    """The loop's decisions with what came of them, as a log that a campaign can read."""
    outcomes = simulated.respond(week.units, drawn.arm, seed=seed, day=week.day)
    ids = [f"{week.day}-{row}" for row in range(len(drawn.arm))]
    return week.units.assign(
        decision_id=ids,
        event_timestamp=pd.Timestamp(START + timedelta(days=week.day)),
        **{simulated.factor: np.array(simulated.arms, dtype=object)[drawn.arm]},
        propensity=drawn.propensity,
        explored=drawn.explored,
        explored_propensity=drawn.explored_propensity,
        holdout=drawn.holdout,
        **{name: outcomes[:, k] for k, name in enumerate(simulated.outcomes)},
    )


def of_arm(matrix: np.ndarray, arm: np.ndarray) -> np.ndarray:
    """The entry [N] of each row's arm in a matrix [N, A]."""
    return np.asarray(matrix[np.arange(len(matrix)), arm])
