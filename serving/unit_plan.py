"""Who should get what, for a unit table, within a budget and other limits: a plan that records nothing.

:func:`serving.batch.decide_batch` is what makes such decisions: it explores, charges the period's budget
and writes a record of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from campaigns.errors import CampaignError, DataError
from campaigns.limits import BUDGET
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from serving.batch import read_units, table_columns
from serving.certainty import value_bounds
from serving.decider import Model
from serving.limits import may_get, sums
from serving.policy.exploration import held_out
from serving.policy.limits import budget
from serving.policy.planning import Plan, allocate_within


@dataclass(frozen=True, eq=False)
class UnitPlan:
    """The plan.

    Attributes:
        table: One row a unit: unit_id, arm, arm_name, value and cost over control, holdout; and
            value_lower and value_upper, the ends of the value's interval, where the model has one.
        value: Expected value over control, in the budget's unit.
        cost: Expected cost.
        plan: The allocation behind it; its values are net of ``min_return`` times the cost.
        at_most: Each limit's bound, by its name.
    """

    table: pd.DataFrame
    value: float
    cost: float
    plan: Plan
    at_most: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """What it comes to, JSON-able but for an infinite limit."""
        limits = {
            name: {"uses": used, "at_most": self.at_most[name], "price": self.plan.prices[name]}
            for name, used in self.plan.uses.items()
        }
        return {
            "units": len(self.table),
            "arms": self.table["arm_name"].value_counts(sort=False).to_dict(),
            "held_out": int(self.table["holdout"].sum()),
            "value": self.value,
            "cost": self.cost,
            "objective": self.plan.value,
            "upper_bound": self.plan.upper_bound,
            "gap": self.plan.gap,
            "limits": limits,
        }


def plan_units(
    model: Model,
    units: pd.DataFrame,
    campaign: Campaign,
    *,
    amount: float | None = None,
) -> UnitPlan:
    """Maximise sum(v - min_return * c) over the units within the budget and the campaign's limits.

    Held-out units get control. Limits are taken whole, whatever their period has seen so far.

    Args:
        model: Answers for the campaign's arms and outcomes.
        units: As :func:`serving.batch.read_units` takes them, and the columns that limits ask for.
        campaign: Gives values, costs, limits, holdout and ``min_return``; with features spelled out.
        amount: The budget; default: that of one of the campaign's periods.

    Raises:
        DataError: The table or the model's answers are wrong, or no allocation keeps to the limits.
        CampaignError: A limit asks for what isn't there, or the budget pays for no arm.
    """
    ids, columns = read_units(units, campaign)
    if not len(ids):
        raise DataError("unit table: has no rows; give one a unit")
    predicted = np.asarray(model.predict(columns), dtype=np.float64)
    if not np.isfinite(predicted).all():
        wrong = int((~np.isfinite(predicted).all(axis=(1, 2))).sum())
        raise DataError(
            f"model: answers {wrong} of {len(ids)} units with what is no number; train it again"
        )
    value, cost = value_and_cost(predicted, campaign)
    most = default_budget(campaign, len(ids)) if amount is None else amount
    if most == 0 and (cost[:, 1:] > 0).all():
        raise CampaignError(
            "budget: is 0, and every arm costs something, so that everybody would get "
            f"{campaign.arm_table.names[0]!r}; give --budget an amount above 0"
        )
    rules = campaign.exploration
    held = held_out(ids, salt=rules.salt, holdout=rules.holdout)
    known = {**table_columns(units), **columns}
    eligible = may_get(campaign, known, len(ids))
    eligible &= ~held[:, None] | (np.arange(value.shape[1]) == 0)
    every = [budget(most, cost, name=BUDGET), *sums(campaign, known, cost, predicted)]
    arm, made = allocate_within(value - campaign.budget.min_return * cost, every, eligible=eligible)
    given = np.arange(len(arm)), arm
    table = pd.DataFrame(
        {
            "unit_id": ids,
            "arm": arm,
            "arm_name": np.array(campaign.arm_table.names, dtype=object)[arm],
            "value": value[given],
            "cost": cost[given],
            "holdout": held,
            **value_bounds(model, columns, arm),
        }
    )
    at_most = {limit.name: limit.at_most for limit in every}
    return UnitPlan(table, float(value[given].sum()), float(cost[given].sum()), made, at_most)


def default_budget(campaign: Campaign, units: int) -> float:
    """What one of the campaign's periods pays for these units."""
    per_unit = campaign.budget.per == "unit"
    return campaign.budget.amount * (units if per_unit else 1)
