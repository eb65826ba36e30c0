"""The next randomized trial: drawn from the unit table, written to the event store, with its power."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from uuid6 import uuid7

from campaigns.errors import CampaignError, choices
from campaigns.objective import arm_costs
from campaigns.settings import Settings
from campaigns.spec import Campaign
from serving.allotment import used
from serving.assessment import feature_columns
from serving.caps import Cap, find_caps, shut
from serving.decider import epoch_key, uses_of
from serving.events import EventStore
from serving.exploring import asked_epsilon
from serving.ledger import Ledger
from serving.limits import may_get, sums
from serving.policy.limits import Limit
from serving.policy.power import power_report
from serving.policy.spend import period_key
from serving.policy.trial import Trial, sample_trial
from serving.records import Decision


@dataclass(frozen=True)
class TrialRun:
    """A trial that was written down.

    Attributes:
        decisions: One row a unit: ids, arm, propensity, features as seen.
        power: The detectable effect per outcome and arm.
        summary: What people read.
    """

    decisions: pd.DataFrame
    power: list[dict[str, Any]]
    summary: str


def run_trial(
    campaign: Campaign,
    units: pd.DataFrame,
    history: pd.DataFrame | None,
    settings: Settings,
    *,
    share: float,
    stratify_by: str = "",
    now: datetime | None = None,
) -> TrialRun:
    """Draw a trial from ``units`` inside what is left of the exploration budget, and record it.

    It keeps to the campaign's rules of eligibility, stocks and part budgets. Guardrails and least shares
    speak of a model's choices, and a trial has none.

    Args:
        campaign: Gives arms, rules and budget.
        units: ``unit_id`` and the features, one row a unit.
        history: A decision frame: what arms cost, and how outcomes vary without treatment.
        settings: Say where the event store is.
        share: Share of the period's remaining exploration budget that the trial may spend, 0..1.
        stratify_by: A categorical feature to balance the arms in, or "".
        now: The moment of the decisions (default: this one).

    Raises:
        CampaignError: ``stratify_by`` is no categorical feature, or ``share`` is no share.
    """
    if not 0 <= share <= 1:
        raise CampaignError(f"share is {share}; it lies between 0 and 1")
    known = campaign.features.categorical
    if stratify_by and stratify_by not in known:
        raise CampaignError(
            f"stratify_by: {stratify_by!r} is no categorical feature; choose from {choices(known)}"
        )
    now = now or datetime.now(UTC)
    store = EventStore(settings.event_store_url)
    store.register(campaign)
    rules, period = campaign.exploration, period_key(campaign.budget.per, now)
    epoch = epoch_key(campaign, now)
    # A unit keeps its arm all through an epoch, so whoever was decided on in this one is left out.
    units = units[~units["unit_id"].isin(store.units_of(campaign.name, epoch))]
    costs = campaign.arm_table.costs if history is None else arm_costs(history, campaign)
    columns = feature_columns(units, campaign)
    spent = np.broadcast_to(costs, (len(units), len(costs)))
    limits = sums(campaign, columns, spent, None)
    with store.transaction(campaign.name) as writer:
        ledger = writer.ledger_of(campaign, now)
        caps = find_caps(limits, campaign, ledger, now)
        eligible, _ = shut(may_get(campaign, columns, len(units)), caps)
        left = _left(campaign, ledger, len(units))
        draw = partial(
            sample_trial,
            units["unit_id"].to_numpy(dtype=object),
            replace(campaign.arm_table, costs=costs),
            budget=share * left,
            epoch=epoch,
            salt=rules.salt,
            strata=units[stratify_by].fillna("").to_numpy() if stratify_by else None,
            eligible=eligible,
            holdout=rules.holdout,
        )
        trial = _within(draw(epsilon=asked_epsilon(campaign, ledger.began, now)), caps, draw)
        decisions = _decisions(trial, units, costs, campaign, period, now, limits)
        writer.add(decisions)
    return TrialRun(
        _frame(decisions, campaign), _power(trial, campaign, history), _told(trial, left)
    )


def _within(trial: Trial, caps: list[Cap], draw: Callable[..., Trial]) -> Trial:
    """The trial, or one of fewer units that keeps to every limit."""
    while trial.got:
        most = 1.0
        for cap in caps:
            taken = float(used(cap.limit.rows_at(trial.row), trial.arm).sum())
            if taken > cap.room:
                most = min(most, max(cap.room, 0.0) / taken)
        if most == 1.0:
            break
        trial = draw(size=int(trial.got * most * 0.98))
    return trial


def _left(campaign: Campaign, spent: Ledger, units: int) -> float:
    """What exploration may still cost in this period."""
    amount = campaign.budget.amount
    if campaign.budget.per == "unit":
        amount *= spent.decisions + units
    cap = campaign.exploration.max_spend_share * amount - spent.exploration_spend
    return max(min(cap, amount - spent.spend), 0.0)


def _decisions(
    trial: Trial,
    units: pd.DataFrame,
    costs: np.ndarray,
    campaign: Campaign,
    period: str,
    now: datetime,
    limits: tuple[Limit, ...],
) -> list[Decision]:
    table = campaign.arm_table
    used_up = uses_of([limit.rows_at(trial.row) for limit in limits], trial.arm, campaign, now)
    features = units[campaign.features.names].iloc[trial.row]
    seen = features.astype(object).where(features.notna(), None).to_dict("records")
    return [
        Decision(
            decision_id=str(uuid7()),
            campaign=campaign.name,
            unit_id=str(unit),
            decided_at=now,
            arm=arm,
            arm_name=table.names[arm],
            levels=dict(zip(table.factors, table.level_names[arm])),
            propensity=p,
            explored=True,
            explored_propensity=p,
            holdout=False,
            policy_version=campaign.hash,
            model_version=None,
            features=row,
            cost=float(costs[arm]),
            epoch=str(trial.epoch),
            period=period,
            reason="A trial drew the unit and the arm.",
            uses=uses,
        )
        for unit, arm, p, row, uses in zip(
            trial.unit_id.tolist(),
            trial.arm.tolist(),
            trial.explored_propensity.tolist(),
            seen,
            used_up,
        )
    ]


def _frame(decisions: list[Decision], campaign: Campaign) -> pd.DataFrame:
    columns = ["decision_id", "unit_id", "decided_at", "arm", "arm_name", "propensity"]
    table = {name: [getattr(d, name) for d in decisions] for name in columns}
    table |= {name: [d.features.get(name) for d in decisions] for name in campaign.features.names}
    frame = pd.DataFrame(table)
    numeric = dict.fromkeys(campaign.features.numeric, np.float64)
    return frame.astype({"arm": np.int64, "propensity": np.float64, **numeric})


def _power(trial: Trial, campaign: Campaign, history: pd.DataFrame | None) -> list[dict[str, Any]]:
    if history is None or history.empty or not len(trial.unit_id):
        return []
    control = history["explored"].to_numpy(bool) & (history["arm"].to_numpy() == 0)
    outcomes = history.loc[control, list(campaign.outcomes)]
    return power_report(
        trial, outcomes.mean().to_numpy(), outcomes.var().to_numpy(), list(campaign.outcomes)
    )


def _told(trial: Trial, left: float) -> str:
    told = (
        f"{len(trial.unit_id):,} units drawn ({trial.share_got:.1%} of {trial.candidates:,}; "
        f"{trial.share_asked:.1%} asked), costing {trial.spend:,.2f}"
    )
    return told if left else f"{told}: the period's exploration budget is spent"
