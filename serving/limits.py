"""What a campaign's limits mean for some units: who may get what, what each arm uses, what is left.

Limits that are sums over a period's decisions (stocks, part budgets, guardrails) are counted in the
ledger, so that they hold decision by decision: an arm that no longer fits isn't open any more. A least
share is a sum over a whole table; between tables it is kept by its price alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from campaigns.errors import CampaignError, choices
from campaigns.limits import (
    AnyLimit,
    Between,
    BudgetLimit,
    Counted,
    Eligibility,
    GuardrailLimit,
    ShareLimit,
    StockLimit,
    Where,
    counted,
)
from campaigns.part import text
from campaigns.spec import Campaign
from serving.policy.limits import Limit, budget, guardrail, least_share
from serving.policy.spend import period_key

Columns = Mapping[str, np.ndarray]
Account = tuple[str, str]  # a limit's name and the period that it holds for


def may_get(campaign: Campaign, columns: Columns, count: int) -> np.ndarray:
    """Which arms the rules of eligibility leave open to each unit, [N, A] bool; control always.

    Args:
        campaign: With the rules.
        columns: What is known of the units, [N] each.
        count: N.

    Raises:
        CampaignError: A rule asks for a column that isn't there.
    """
    open_to = np.ones((count, len(campaign.arm_table)), dtype=bool)
    for rule in campaign.limits:
        if isinstance(rule, Eligibility):
            outside = ~_inside(rule.where, columns, count, rule.title)
            open_to[np.ix_(outside, _arms(rule.arms, rule.level, campaign))] = False
    return open_to


def sums(
    campaign: Campaign, columns: Columns, cost: np.ndarray, predicted: np.ndarray | None
) -> tuple[Limit, ...]:
    """The campaign's limits as sums over N units, in its order.

    Args:
        campaign: With the limits.
        columns: What is known of the units, [N] each.
        cost: Of each arm over control, [N, A].
        predicted: Expected potential outcomes, [N, A, K]; without them guardrails are left out.

    Raises:
        CampaignError: A limit asks for a column that isn't there.
    """
    return tuple(
        _sum(limit, campaign, columns, cost, predicted)
        for limit in campaign.limits
        if not isinstance(limit, Eligibility)
        and not (predicted is None and isinstance(limit, GuardrailLimit))
    )


def accounts(campaign: Campaign, now: datetime) -> dict[str, Account]:
    """Where each counted limit's use is kept now, by its name."""
    return {
        limit.title: (limit.title, period_key(period_of(limit, campaign), now))
        for limit in counted(campaign.limits)
    }


def period_of(limit: Counted, campaign: Campaign) -> str:
    """For how long it holds: a period as budgets have it."""
    per = limit.per or campaign.budget.per
    return "total" if per == "unit" else per


def kept_online(campaign: Campaign) -> dict[str, str]:
    """How each limit is kept where units come one by one, by its name."""
    told = {}
    for limit in campaign.limits:
        if isinstance(limit, Eligibility):
            told[limit.title] = "by every decision"
        elif isinstance(limit, Counted):
            told[limit.title] = f"by every decision, per {period_of(limit, campaign)}"
        else:
            told[limit.title] = "exactly in 'updraft allocate'; online by a fixed price, roughly"
    return told


def nobody_meant(campaign: Campaign, columns: Columns, count: int) -> list[str]:
    """Limits whose ``where`` fits no unit of a table, a sentence each: a misspelt value, most likely."""
    told = []
    for place, limit in enumerate(campaign.limits):
        where = getattr(limit, "where", {})
        if where and not _inside(where, columns, count, limit.title).any():
            told.append(f"limits.{place}.where: fits none of {count:,} units")
    return told


def _sum(
    asked: AnyLimit,
    campaign: Campaign,
    columns: Columns,
    cost: np.ndarray,
    predicted: np.ndarray | None,
) -> Limit:
    (count, arms), name = cost.shape, asked.title
    if isinstance(asked, StockLimit):
        named = None if asked.arm is None else [asked.arm]
        mine = np.isin(np.arange(arms), _arms(named, asked.level, campaign))
        return Limit(name, mine.astype(np.float64), float(np.floor(asked.at_most)))
    if isinstance(asked, BudgetLimit):
        spent = cost if asked.factor is None else _level_costs(asked.factor, campaign)
        inside = _inside(asked.where, columns, count, name) if asked.where else None
        return budget(asked.amount, spent, name=name, units=inside)
    if isinstance(asked, ShareLimit):
        given = None if asked.arms is None else list(_arms(asked.arms, {}, campaign))
        inside = _inside(asked.where, columns, count, name)
        return least_share(asked.at_least, inside, arms, name=name, given=given)
    if not isinstance(asked, GuardrailLimit) or predicted is None:
        raise TypeError(f"{name}: is no sum over these units")
    effect = (predicted - predicted[:, :1])[:, :, list(campaign.outcomes).index(asked.outcome)]
    return guardrail(asked.at_most, effect, name=name)


def _arms(named: Sequence[str] | None, level: Mapping[str, str], campaign: Campaign) -> np.ndarray:
    """Indices of the arms with these names, or with these levels."""
    table = campaign.arm_table
    if named:
        return np.array([table.names.index(arm) for arm in named], dtype=np.int64)
    has = np.ones(len(table), dtype=bool)
    for factor, name in level.items():
        place = table.factors.index(factor)
        has &= np.array([levels[place] == name for levels in table.level_names])
    return np.flatnonzero(has)


def _level_costs(factor: str, campaign: Campaign) -> np.ndarray:
    """What each arm's level of one factor costs, [A]."""
    table, costs = campaign.arm_table, campaign.treatments[factor].costs
    place = table.factors.index(factor)
    return np.array([costs[levels[place]] for levels in table.level_names])


def _inside(where: Where, columns: Columns, count: int, title: str) -> np.ndarray:
    """Who is meant, [N] bool; a missing value is no one's."""
    inside = np.ones(count, dtype=bool)
    for name, wanted in where.items():
        if name not in columns:
            raise CampaignError(
                f"limits: {title}: the unit table has no column {name!r}; choose from "
                f"{choices(map(str, columns))}"
            )
        column = np.asarray(columns[name])
        if isinstance(wanted, Between):
            numbers = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(np.float64)
            low = -np.inf if wanted.at_least is None else wanted.at_least
            high = np.inf if wanted.below is None else wanted.below
            inside &= (numbers >= low) & (numbers < high)
        else:
            inside &= np.array([_word(value) in wanted for value in column.tolist()], dtype=bool)
    return inside


def _word(value: Any) -> str | None:
    return None if value is None or value != value else str(text(value))
