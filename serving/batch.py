"""Decide on a whole unit table at once: the best allocation of the budget, not a price for each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from campaigns.errors import DataError, choices
from campaigns.frame import unit_ids
from campaigns.spec import Campaign
from serving.allotment import (
    left_of,
    used,
)
from serving.batch_draw import draw_batch
from serving.caps import find_caps
from serving.certainty import value_bounds
from serving.decider import (
    Model,
    Policy,
    Unit,
    assess,
    budget_for,
    columns,
    records,
)
from serving.events import EventStore
from serving.limits import Columns
from serving.records import Decision


@dataclass(frozen=True, eq=False)
class BatchRun:
    """Decisions on a unit table.

    Attributes:
        decisions: One a unit, in the table's order; durable.
        price: lambda of the allocation: value asked of one unit of cost.
        gap: How far from the best allocation it can be at most, 0..1.
        spend: Expected cost of the decisions, within the budget.
        value: Expected value of each over control, [N]; nan where the request was made before.
        budget: What they might have cost at most; nan likewise.
        repeated: The request was made before: these are the decisions of then.
        bounds: ``value_lower`` and ``value_upper``, [N] each, where the model has intervals.
        limits: Of each limit beside the budget what these decisions use, what they might have used at
            most (what its period had left), and its price.
    """

    decisions: list[Decision]
    price: float
    gap: float
    spend: float
    value: np.ndarray
    budget: float
    repeated: bool = False
    bounds: dict[str, np.ndarray] = field(default_factory=dict)
    limits: dict[str, dict[str, float]] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row a unit: decision_id, unit_id, arm, arm_name, propensity, explored, holdout, cost, value;
        and value_lower and value_upper, the ends of its interval, where the model has one.
        """
        names = "decision_id unit_id arm arm_name propensity explored holdout cost".split()
        table = {name: [getattr(d, name) for d in self.decisions] for name in names}
        return pd.DataFrame(table).assign(value=self.value, **self.bounds)


def decide_batch(
    model: Model,
    units: pd.DataFrame,
    store: EventStore,
    *,
    model_version: str | None = None,
    budget: float | None = None,
    request_id: str | None = None,
    now: datetime | None = None,
) -> BatchRun:
    """Allocate what is left of the period's budget over a unit table, explore, and record it all.

    Units are drawn for exploration first, and what that costs is set aside; the rest of the budget is
    allocated over everybody (the explored too: what they would get is part of their propensity) by the
    multiple-choice knapsack. So the spend never passes the budget, nor what the period has left of
    any limit; a least share is kept by the table. Online decisions of the campaign
    wait while these are made and written.

    Args:
        model: Answers for the campaign.
        units: ``unit_id`` (each once) and the features, N rows.
        store: Where the decisions go.
        model_version: What to record as the model's version.
        budget: Most that these decisions may cost; default, and limit: what the period has left.
        request_id: A repeated request gets the decisions of the first.
        now: The moment of the decisions (default: this one), UTC.

    Raises:
        DataError: A column is missing, a unit comes twice, or the limits can't be kept.
    """
    campaign, now = model.campaign, now or datetime.now(UTC)
    listed = _units(units, campaign)
    assessed = assess(model, listed, table_columns(units))
    store.register(campaign)
    with store.transaction(campaign.name) as writer:
        before = writer.find(request_id, "") if request_id is not None else None
        if before is not None:
            unknown = np.full(len(before), np.nan)
            return _run(before, 0.0, 0.0, unknown, np.nan, repeated=True)
        ledger = writer.ledger_of(campaign, now)
        left = budget_for(campaign, ledger, len(listed)) - ledger.spend
        limit = max(left if budget is None else min(left, budget), 0.0)
        found = draw_batch(assessed, campaign, ledger, limit, now)
        drawn, allocation = found.drawn, found.allotment
        made = records(
            assessed,
            drawn,
            Policy.of(model, model_version),
            now,
            allocation.price,
            found.epsilon,
            found.reason,
            found.away,
        )
        writer.add(made, request_id)
    value = assessed.value[np.arange(len(made)), drawn.arm]
    told = {
        each.name: {
            "uses": float(used(each, drawn.arm).sum()),
            "at_most": each.at_most,
            "price": allocation.prices[each.name],
        }
        for each in left_of(assessed.limits, find_caps(assessed.limits, campaign, ledger, now))
    }
    bounds = value_bounds(model, columns(listed, campaign), drawn.arm)
    run = _run(made, allocation.price, allocation.gap, value, limit)
    return replace(run, limits=told, bounds=bounds)


def read_units(table: pd.DataFrame, campaign: Campaign) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Ids [N] and features of a unit table: numbers with NaN, words with None, [N] each.

    Args:
        table: ``unit_id``, or the column that the campaign calls its unit, each once, and the features.
        campaign: Gives the features.

    Raises:
        DataError: A column is missing or holds no numbers where it should, a unit comes twice or has no
            id.
    """
    key = "unit_id" if "unit_id" in table.columns else campaign.unit
    missing = [name for name in (key, *campaign.features.names) if name not in table.columns]
    if missing:
        raise DataError(
            f"unit table: {choices(missing)} missing; it has {choices(map(str, table.columns))}"
        )
    if table[key].isna().any():
        raise DataError(f"unit table: {int(table[key].isna().sum())} rows have no {key}")
    ids = pd.Series(unit_ids(table[key]))
    if ids.duplicated().any():
        raise DataError(
            f"unit table: unit {ids[ids.duplicated()].iloc[0]!r} comes twice; "
            "a batch decides on each once"
        )
    columns: dict[str, np.ndarray] = {}
    for name in campaign.features.numeric:
        try:
            numbers = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise DataError(f"unit table: column {name!r} holds no numbers ({error})") from error
        columns[name] = np.where(np.isfinite(numbers), numbers, np.nan)
    for name in campaign.features.categorical:
        column = table[name].astype(object)
        columns[name] = np.empty(len(table), dtype=object)
        columns[name][:] = [None if gone else str(v) for v, gone in zip(column, column.isna())]
    return ids.to_numpy(), columns


def table_columns(table: pd.DataFrame) -> Columns:
    """Every column of a unit table, [N] each, for limits that ask for one."""
    return {str(name): table[name].to_numpy() for name in table.columns}


def _units(table: pd.DataFrame, campaign: Campaign) -> list[Unit]:
    ids, columns = read_units(table, campaign)
    seen = [
        [_or_none(v) for v in columns[name]] if name in campaign.features.numeric else columns[name]
        for name in columns
    ]
    return [Unit(unit, dict(zip(columns, row))) for unit, row in zip(ids.tolist(), zip(*seen))]


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _run(
    made: list[Decision],
    price: float,
    gap: float,
    value: np.ndarray,
    budget: float,
    *,
    repeated: bool = False,
) -> BatchRun:
    spend = float(sum(one.cost for one in made))
    return BatchRun(made, price, gap, spend, value, budget, repeated)
