"""What a budget's period has seen, kept up in the transaction that stores its decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, bindparam, cast, func, select
from sqlalchemy.dialects import postgresql, sqlite

from campaigns.spec import Campaign
from serving.limits import accounts
from serving.policy.spend import period_key
from serving.records import Decision, from_micros
from serving.tables import decisions as decisions_table
from serving.tables import ledger, limit_uses

SUMS = ("decisions", "explored", "holdout", "spend", "exploration_spend")


@dataclass(frozen=True, slots=True)
class Ledger:
    """Sums over decisions; costs are expected ones, in the budget's unit.

    ``uses`` is what has been used of each limit, by (limit, period); ``began`` when the campaign's first
    decision was made, where that is asked for.
    """

    decisions: int = 0
    explored: int = 0
    holdout: int = 0
    spend: float = 0.0
    exploration_spend: float = 0.0
    uses: Mapping[tuple[str, str], float] = field(default_factory=dict)
    began: datetime | None = None

    def plus(self, decisions: Iterable[Decision]) -> Ledger:
        """These sums with some more decisions."""
        total = self
        for one in decisions:
            explored = one.cost * one.explored
            total = replace(
                total,
                decisions=total.decisions + 1,
                explored=total.explored + one.explored,
                holdout=total.holdout + one.holdout,
                spend=total.spend + one.cost,
                exploration_spend=total.exploration_spend
                + (explored if one.exploration_cost is None else one.exploration_cost),
            )
            if one.uses:
                total = replace(total, uses=_added(total.uses, one.uses))
        return total


Uses = Mapping[tuple[str, str], float]


def _added(uses: Uses, more: Uses) -> Uses:
    return {**uses, **{account: uses.get(account, 0.0) + used for account, used in more.items()}}


def read(connection: Connection, campaign: str, period: str | None = None) -> Ledger:
    """The sums of one period, or of all of them."""
    if period is None:
        sums = connection.execute(_ALL, {"campaign": campaign})
    else:
        sums = connection.execute(_PERIOD, {"campaign": campaign, "period": period})
    return Ledger(**sums.mappings().one())


def ledger_of(connection: Connection, campaign: Campaign, now: datetime) -> Ledger:
    """All that a campaign's decisions of this moment go by: its period's sums, and its limits'."""
    sums = read(connection, campaign.name, period_key(campaign.budget.per, now))
    falls = campaign.exploration.strategy == "schedule"
    return replace(
        sums,
        uses=uses(connection, campaign.name, accounts(campaign, now).values()),
        began=began(connection, campaign.name) if falls else None,
    )


def uses(
    connection: Connection, campaign: str, accounts: Collection[tuple[str, str]]
) -> dict[tuple[str, str], float]:
    """What has been used of each limit in its period, by (limit, period); 0 where nothing was."""
    if not accounts:
        return {}
    periods = sorted({period for _, period in accounts})
    found = connection.execute(_USES, {"campaign": campaign, "periods": periods})
    known = {(row.limit_name, row.period): float(row.used) for row in found}
    return {account: known.get(account, 0.0) for account in accounts}


def began(connection: Connection, campaign: str) -> datetime | None:
    """When the campaign's first decision was made; None: not yet."""
    first = connection.scalar(_FIRST, {"campaign": campaign})
    return None if first is None else from_micros(first)


def by_arm(connection: Connection, campaign: str) -> dict[str, int]:
    """How often each arm was given, over all periods."""
    row = ledger.c
    total = cast(func.sum(row.decisions), BigInteger)
    query = select(row.arm_name, total).where(row.campaign == campaign).group_by(row.arm_name)
    return {name: int(given) for name, given in connection.execute(query)}


def count(connection: Connection, campaign: str, decisions: Sequence[Decision]) -> None:
    """Add decisions to the sums of their periods."""
    groups: dict[tuple[str, str], list[Decision]] = {}
    for decision in decisions:
        groups.setdefault((decision.period, decision.arm_name), []).append(decision)
    if groups:
        rows = [
            _row(campaign, period, arm, group) for (period, arm), group in sorted(groups.items())
        ]
        connection.execute(_addition(connection.dialect.name), rows)
    used: Uses = {}
    for decision in decisions:
        used = _added(used, decision.uses) if decision.uses else used
    if used:
        entries = [
            {"campaign": campaign, "limit_name": name, "period": period, "used": amount}
            for (name, period), amount in sorted(used.items())
        ]
        connection.execute(_use(connection.dialect.name), entries)


def _row(campaign: str, period: str, arm: str, decisions: Sequence[Decision]) -> dict[str, Any]:
    sums = Ledger().plus(decisions)
    key = {"campaign": campaign, "period": period, "arm_name": arm}
    return {**key, **{name: getattr(sums, name) for name in SUMS}}


# Statements are built once: building them costs more than running them.


def _sums() -> Select[Any]:
    counts = [func.coalesce(cast(func.sum(ledger.c[name]), BigInteger), 0) for name in SUMS[:3]]
    costs = [func.coalesce(func.sum(ledger.c[name]), 0.0) for name in SUMS[3:]]
    labelled = [column.label(name) for column, name in zip([*counts, *costs], SUMS)]
    return select(*labelled).where(ledger.c.campaign == bindparam("campaign"))


_ALL = _sums()
_PERIOD = _sums().where(ledger.c.period == bindparam("period"))


@cache
def _addition(dialect: str) -> Any:
    """INSERT a row of sums, or add it to the one that is there."""
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(ledger)
    added = {name: ledger.c[name] + insert.excluded[name] for name in SUMS}
    return insert.on_conflict_do_update(index_elements=list(ledger.primary_key), set_=added)


_FIRST = select(func.min(decisions_table.c.decided_at)).where(
    decisions_table.c.campaign == bindparam("campaign")
)
_USES = select(limit_uses.c.limit_name, limit_uses.c.period, limit_uses.c.used).where(
    limit_uses.c.campaign == bindparam("campaign"),
    limit_uses.c.period.in_(bindparam("periods", expanding=True)),
)


@cache
def _use(dialect: str) -> Any:
    """As ``_addition``, for limits."""
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(limit_uses)
    return insert.on_conflict_do_update(
        index_elements=list(limit_uses.primary_key),
        set_={"used": limit_uses.c.used + insert.excluded.used},
    )
