"""An experiment's decisions for good: written to the event store and charged to the period's budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from campaigns.errors import CampaignError, DataError
from campaigns.frame import UTC_MICROSECONDS
from campaigns.spec import Campaign
from serving.decider import budget_for, epoch_key
from serving.events import EventStore
from serving.experiment import Prepared, deal
from serving.policy.spend import period_key
from serving.records import Decision


def record(
    prepared: Prepared,
    store: EventStore,
    *,
    budget: float | None = None,
    request_id: str | None = None,
    now: datetime | None = None,
) -> tuple[pd.DataFrame, bool]:
    """As :func:`deal`, written to the event store and charged to the period's budget.

    Held-out units get no decision. Units that were decided on in this epoch already are left out: their
    outcomes are those of what they were given then.

    Args:
        prepared: Of :func:`prepare`.
        store: Where the decisions go.
        budget: Most that they may cost; default, and limit: what the period has left.
        request_id: A repeated request gets the decisions of the first.
        now: The moment of the decisions (default: this one).

    Returns:
        The table, and whether the request was made before.

    Raises:
        CampaignError: The experiment hasn't started.
        DataError: There is nobody left to decide on.
    """
    campaign, now = prepared.campaign, now or datetime.now(UTC)
    if now < prepared.experiment.start:
        raise CampaignError(
            f"start: is {prepared.experiment.start.isoformat()}, and it is {now.isoformat()}; decide "
            "then, or move it: what is decided before doesn't count"
        )
    store.register(campaign)
    done = store.units_of(campaign.name, epoch_key(campaign, now))
    with store.transaction(campaign.name) as writer:
        before = writer.find(request_id, "") if request_id is not None else None
        if before is not None:
            return _again(before, campaign), True
        prepared = _without(prepared, done)
        ledger = writer.ledger(period_key(campaign.budget.per, now))
        left = max(budget_for(campaign, ledger, prepared.taking_part) - ledger.spend, 0.0)
        table = deal(prepared, left if budget is None else min(left, budget), now)
        table = table[~table["holdout"]].reset_index(drop=True)
        writer.add(_decisions(table, campaign, now), request_id)
    return table, False


def _without(prepared: Prepared, done: set[str]) -> Prepared:
    """The experiment for units that weren't decided on: the others count as held out here."""
    again = np.fromiter(
        (unit in done for unit in prepared.ids), dtype=bool, count=len(prepared.ids)
    )
    kept = []
    for bucket in prepared.buckets:
        stays = ~again[bucket.rows]
        each = ("rows", "value", "cost", "eligible")
        kept.append(replace(bucket, **{name: getattr(bucket, name)[stays] for name in each}))
    found = replace(prepared, held=prepared.held | again, buckets=kept)
    if not found.taking_part:
        raise DataError(
            f"unit table: all of its {len(prepared.ids)} units are held out or were decided on in "
            "this epoch already; nobody is left"
        )
    return found


def _decisions(table: pd.DataFrame, campaign: Campaign, now: datetime) -> list[Decision]:
    names, factors = campaign.features.names, campaign.arm_table.factors
    features = table[names].astype(object).where(table[names].notna(), None).to_dict("records")
    period, epoch = period_key(campaign.budget.per, now), epoch_key(campaign, now)
    return [
        Decision(
            decision_id=row["decision_id"],
            campaign=campaign.name,
            unit_id=row["unit_id"],
            decided_at=now,
            arm=row["arm"],
            arm_name=row["arm_name"],
            levels={factor: row[factor] for factor in factors},
            propensity=row["propensity"],
            explored=row["explored"],
            explored_propensity=row["propensity"] if row["explored"] else None,
            holdout=False,
            policy_version=row["policy_version"],
            model_version=row["model_version"],
            features=seen,
            cost=row["cost"],
            epoch=epoch,
            period=period,
            reason="An experiment's variant decided.",
        )
        for row, seen in zip(table.drop(columns=names).to_dict("records"), features)
    ]


def _again(decisions: list[Decision], campaign: Campaign) -> pd.DataFrame:
    """The table of decisions that were recorded before; what they were worth isn't known any more."""
    names = "decision_id unit_id arm arm_name propensity explored holdout cost".split()
    table = {name: [getattr(one, name) for one in decisions] for name in names}
    table |= {
        name: [getattr(d, name) for d in decisions] for name in ("policy_version", "model_version")
    }
    frame = pd.DataFrame(table).assign(value=np.nan)
    frame["variant"] = frame["policy_version"].str.partition("/")[2]
    frame["decided_at"] = pd.Series([d.decided_at for d in decisions]).astype(UTC_MICROSECONDS)
    for factor in campaign.arm_table.factors:
        frame[factor] = [d.levels[factor] for d in decisions]
    for name in campaign.features.names:
        frame[name] = [d.features.get(name) for d in decisions]
    return frame
