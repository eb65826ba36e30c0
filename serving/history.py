"""What the event store says afterwards: the frame to learn from, and the sums to look at."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    select,
)

from campaigns.frame import UTC_MICROSECONDS
from campaigns.spec import Campaign
from serving import tables
from serving.records import to_micros

log = logging.getLogger(__name__)


def decisions_frame(
    connection: Connection, campaign: Campaign, *, now: datetime, since: datetime | None = None
) -> pd.DataFrame:
    """The campaign's decisions whose outcomes are complete, as a decision frame.

    A decision is complete when every outcome was reported, or when it is older than the campaign's
    attribution window; an outcome that never came is then 0 or NaN, as ``attribution.absent`` says.
    A trial of which no outcome was ever reported wasn't carried out and is left out.
    Columns as in :mod:`campaigns.frame`, the features as they were seen then, in the order of time.

    Args:
        connection: An open connection.
        campaign: With ``'*'`` features expanded.
        now: Decisions up to now count.
        since: The first moment that counts; default: all.
    """
    chosen, row = _between(campaign.name, now, since), tables.decisions.c
    query = select(tables.decisions).where(chosen).order_by(row.decided_at, row.decision_id)
    rows = connection.execute(query).all()
    observed = _observed(connection, campaign, rows, chosen)
    days = timedelta(days=campaign.attribution.days)
    decided = np.array([row.decided_at for row in rows], dtype=np.int64)
    passed = decided <= to_micros(now) - days // timedelta(microseconds=1)
    known = np.array([_arm(row, campaign) is not None for row in rows], dtype=bool)
    if not known.all():
        log.warning(
            "campaign %s: %d decisions gave an arm that it doesn't have any more; they are left out",
            campaign.name,
            int((~known).sum()),
        )
    reported = ~np.isnan(observed)
    carried_out = _carried_out(rows, decided, reported.any(axis=1))
    keep = np.flatnonzero(known & carried_out & (passed | reported.all(axis=1)))
    if campaign.attribution.absent == "zero":
        observed = np.nan_to_num(observed, nan=0.0)
    return _frame([rows[i] for i in keep.tolist()], decided[keep], observed[keep], campaign)


def _carried_out(rows: Sequence[Row[Any]], decided: np.ndarray, reported: np.ndarray) -> np.ndarray:
    """Which decisions really happened, [N] bool: all that were asked for, and trials that were run.

    A trial is a plan (its rows have no epsilon, and one time of decision) until the first outcome of
    any of its units comes in; one that nobody ran must not be read as "nothing ever happened".
    """
    planned = np.array([row.epsilon is None for row in rows], dtype=bool)
    run = np.unique(decided[planned & reported])
    return ~planned | np.isin(decided, run)


def _between(name: str, now: datetime, since: datetime | None) -> ColumnElement[bool]:
    row = tables.decisions.c
    conditions = [row.campaign == name, row.decided_at <= to_micros(now)]
    if since is not None:
        conditions.append(row.decided_at >= to_micros(since))
    return and_(*conditions)


def _counted(conditions: ColumnElement[bool]) -> Subquery:
    """The outcomes that count, of the decisions that meet the conditions.

    Of the writes for a (decision, outcome) that is the last correction, else the first. Joined before
    they are ranked: PostgreSQL plans that well even for tables that it hasn't analysed yet.
    """
    row, decision = tables.outcomes.c, tables.decisions.c
    latest_correction = case((row.correct, -row.sequence), else_=row.sequence)
    rank = func.row_number().over(
        partition_by=(row.decision_id, row.outcome),
        order_by=(row.correct.desc(), latest_correction),
    )
    ranked = (
        select(row.decision_id, decision.period, row.outcome, row.value, rank.label("rank"))
        .join(tables.decisions, decision.decision_id == row.decision_id)
        .where(conditions)
        .subquery()
    )
    return select(ranked).where(ranked.c.rank == 1).subquery()


def _observed(
    connection: Connection,
    campaign: Campaign,
    rows: Sequence[Row[Any]],
    chosen: ColumnElement[bool],
) -> np.ndarray:
    """Outcomes [N, K], NaN where none was reported."""
    place = {row.decision_id: index for index, row in enumerate(rows)}
    column = {name: k for k, name in enumerate(campaign.outcomes)}
    observed = np.full((len(rows), len(column)), np.nan)
    outcome = _counted(chosen).c
    for decision_id, name, value in connection.execute(
        select(outcome.decision_id, outcome.outcome, outcome.value)
    ):
        if name in column and decision_id in place:
            observed[place[decision_id], column[name]] = value
    return observed


def _arm(row: Row[Any], campaign: Campaign) -> int | None:
    """The arm's index today: by its levels, since a campaign may have got new ones since."""
    table = campaign.arm_table
    levels = json.loads(row.levels)
    return table.index(tuple(levels.get(factor, "") for factor in table.factors))


def _frame(
    rows: Sequence[Row[Any]], decided: np.ndarray, observed: np.ndarray, campaign: Campaign
) -> pd.DataFrame:
    features = [json.loads(row.features) for row in rows]
    levels = [json.loads(row.levels) for row in rows]
    columns: dict[str, Any] = {
        "decision_id": _words([row.decision_id for row in rows]),
        "unit_id": _words([row.unit_id for row in rows]),
        "decided_at": pd.Series(decided.view("M8[us]"))
        .dt.tz_localize("UTC")
        .astype(UTC_MICROSECONDS),
        "arm": np.array([_arm(row, campaign) for row in rows], dtype=np.int64),
        "propensity": _numbers([row.propensity for row in rows]),
        "explored": np.array([row.explored for row in rows], dtype=bool),
        "explored_propensity": _numbers([row.explored_propensity for row in rows]),
        "holdout": np.array([row.holdout for row in rows], dtype=bool),
        "policy_version": _words([row.policy_version for row in rows]),
        "model_version": _words([row.model_version for row in rows]),
    }
    for name, factor in campaign.treatments.items():
        given = [level[name] for level in levels]
        columns[name] = _numbers([float(dose) for dose in given]) if factor.dose else _words(given)
    columns |= {
        name: _numbers([f.get(name) for f in features]) for name in campaign.features.numeric
    }
    columns |= {
        name: _words([f.get(name) for f in features]) for name in campaign.features.categorical
    }
    columns |= {name: observed[:, k] for k, name in enumerate(campaign.outcomes)}
    return pd.DataFrame(columns)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _words(values: Sequence[str | None]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


@dataclass(frozen=True)
class Summary:
    """One period of a campaign, from the log itself.

    Attributes:
        campaign: Its name.
        period: The budget's period, such as ``2026-02-03``.
        decisions: How many.
        by_arm: Of those, by the arm's name.
        explored: Drawn at random.
        holdout: Of units that are never treated.
        spend: Expected cost of the arms given.
        exploration_spend: Of those drawn at random.
        outcomes: Mean of each outcome over the decisions that have it.
        observed: How many decisions have it.
    """

    campaign: str
    period: str
    decisions: int
    by_arm: dict[str, int]
    explored: int
    holdout: int
    spend: float
    exploration_spend: float
    outcomes: dict[str, float]
    observed: dict[str, int]


def summary(connection: Connection, campaign: str, since: datetime | None = None) -> list[Summary]:
    """One entry a period, in their order.

    Args:
        connection: An open connection.
        campaign: Its name.
        since: The first moment that counts; default: all.
    """
    row = tables.decisions.c
    chosen = and_(row.campaign == campaign, row.decided_at >= (to_micros(since) if since else 0))
    explored = cast(row.explored, Integer)
    query = (
        select(
            row.period,
            row.arm_name,
            func.count(),
            func.sum(explored),
            func.sum(cast(row.holdout, Integer)),
            func.sum(row.cost),
            func.sum(case((row.explored, row.cost), else_=literal(0.0))),
        )
        .where(chosen)
        .group_by(row.period, row.arm_name)
        .order_by(row.period, row.arm_name)
    )
    arms: dict[str, list[Any]] = {}
    for period, *figures in connection.execute(query):
        arms.setdefault(period, []).append(figures)
    outcome = _counted(chosen).c
    means_query = select(
        outcome.period, outcome.outcome, func.avg(outcome.value), func.count()
    ).group_by(outcome.period, outcome.outcome)
    means: dict[str, dict[str, tuple[float, int]]] = {}
    for period, name, mean, count in connection.execute(means_query):
        means.setdefault(period, {})[name] = (float(mean), int(count))
    return [
        _summary(campaign, period, rows, means.get(period, {})) for period, rows in arms.items()
    ]


def _summary(
    campaign: str, period: str, arms: Sequence[Any], means: dict[str, tuple[float, int]]
) -> Summary:
    _, count, explored, holdout, spend, exploration = zip(*arms)
    return Summary(
        campaign=campaign,
        period=period,
        decisions=sum(count),
        by_arm={name: number for name, number, *_ in arms},
        explored=sum(explored),
        holdout=sum(holdout),
        spend=float(sum(spend)),
        exploration_spend=float(sum(exploration)),
        outcomes={name: mean for name, (mean, _) in sorted(means.items())},
        observed={name: number for name, (_, number) in sorted(means.items())},
    )
