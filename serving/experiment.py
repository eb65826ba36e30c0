"""The decisions of an experiment: each unit's variant, and what that variant's policy gives it.

Every variant has the same budget for a unit; the campaign's held-out units take no part. A propensity
is the probability of the unit's arm under its variant's policy, over that policy's own draws: 1 where a
model chose, exact where a lottery did, since the lotteries draw fixed numbers of units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from uuid6 import uuid7

from campaigns.errors import CampaignError, DataError, choices
from campaigns.experiment import Experiment, Variant
from campaigns.frame import UTC_MICROSECONDS
from campaigns.limits import Eligibility
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from serving.batch import read_units
from serving.decider import Model, epoch_key
from serving.limits import may_get
from serving.policy.allocation import allocate
from serving.policy.buckets import buckets
from serving.policy.exploration import held_out
from serving.policy.ration import ration
from serving.policy.trial import sample_trial
from serving.unit_plan import default_budget

NOBODY = "nobody"


@dataclass(frozen=True, eq=False)
class Ready:
    """What a variant decides with: a model and its version, or an arm's index, or neither."""

    model: Model | None = None
    version: str | None = None
    arm: int | None = None


@dataclass(frozen=True, eq=False)
class Bucket:
    """A variant's units, n of them, and what their arms are worth.

    Attributes:
        rows: In the unit table, [n].
        value, cost: Of every arm over control, [n, A]; value is 0 where no model says.
        eligible: Which arms each may get, [n, A].
    """

    name: str
    variant: Variant
    ready: Ready
    rows: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    eligible: np.ndarray


@dataclass(frozen=True, eq=False)
class Prepared:
    """An experiment whose units are known and whose models were asked.

    Attributes:
        ids: Units, [N].
        held: Held out, [N].
        seen: Their features, [N] each.
    """

    experiment: Experiment
    campaign: Campaign
    ids: np.ndarray
    held: np.ndarray
    seen: dict[str, np.ndarray]
    buckets: list[Bucket]

    @property
    def taking_part(self) -> int:
        return int((~self.held).sum())


def decided_by(policy_version: str | None, experiment: Experiment) -> str | None:
    """The variant that a recorded decision's ``policy_version`` names; None: it is none of ours."""
    name, mark, variant = (policy_version or "").partition("/")
    return variant if mark and name == experiment.name else None


def prepare(
    experiment: Experiment,
    campaign: Campaign,
    units: pd.DataFrame,
    ready: Mapping[str, Ready],
    costs: np.ndarray,
) -> Prepared:
    """Find every unit's bucket, and ask the models about their own.

    Args:
        experiment: The variants.
        campaign: With features spelled out; of the same arms and outcomes as the models.
        units: As :func:`serving.batch.read_units` takes them, for the campaign and every model.
        ready: What each variant decides with, by its name.
        costs: What each arm costs where no model says, [A].

    Raises:
        DataError: The table or a model's answers are wrong.
        CampaignError: The campaign has limits that can't be shared out between variants.
    """
    shared = [limit.title for limit in campaign.limits if not isinstance(limit, Eligibility)]
    if shared:
        raise CampaignError(
            f"limits: {choices(shared)} can't be shared out between variants, which keep to the budget "
            "and to eligibility; leave it out of the campaign of an experiment"
        )
    ids, seen = read_units(units, campaign)
    if not len(ids):
        raise DataError("unit table: has no rows; give one a unit")
    rules = campaign.exploration
    held = held_out(ids, salt=rules.salt, holdout=rules.holdout)
    bucket = buckets(ids, experiment.shares, salt=experiment.salt, experiment=experiment.name)
    known = {str(column): units[column].to_numpy() for column in units.columns} | seen
    eligible, found = may_get(campaign, known, len(ids)), []
    for place, (name, variant) in enumerate(experiment.variants.items()):
        rows = np.flatnonzero((bucket == place) & ~held)
        value = np.zeros((len(rows), len(costs)))
        cost = np.broadcast_to(costs, value.shape)
        model = ready[name].model
        if model is not None and len(rows):
            value, cost = _asked(name, model, units.iloc[rows], campaign)
        found.append(Bucket(name, variant, ready[name], rows, value, cost, eligible[rows]))
    return Prepared(experiment, campaign, ids, held, seen, found)


def _asked(
    name: str, model: Model, units: pd.DataFrame, campaign: Campaign
) -> tuple[np.ndarray, np.ndarray]:
    _, columns = read_units(units, model.campaign)
    predicted = np.asarray(model.predict(columns), dtype=np.float64)
    if not np.isfinite(predicted).all():
        wrong = int((~np.isfinite(predicted).all(axis=(1, 2))).sum())
        raise DataError(
            f"variants.{name}: its model answers {wrong} of {len(units)} units with what is no "
            "number; train it again"
        )
    return value_and_cost(predicted, campaign)


def deal(prepared: Prepared, budget: float | None, now: datetime) -> pd.DataFrame:
    """Let every variant decide within its part of the budget; nothing is recorded.

    Args:
        prepared: Of :func:`prepare`.
        budget: Of all variants together, >= 0; default: that of one of the campaign's periods.
        now: The moment of the decisions, UTC.

    Returns:
        One row a unit, in the order of the unit table: decision_id, unit_id, decided_at, variant (None
        where held out), arm, arm_name, each factor's level, propensity, explored, holdout, cost, value,
        policy_version, model_version, and the features.

    Raises:
        CampaignError: The budget pays for no arm.
    """
    campaign, count = prepared.campaign, len(prepared.ids)
    total = default_budget(campaign, prepared.taking_part) if budget is None else budget
    costs = [bucket.cost[:, 1:] for bucket in prepared.buckets if bucket.cost.size]
    if total == 0 and all((cost > 0).all() for cost in costs):
        raise CampaignError(
            "budget: is 0, and every arm costs something, so that every variant would give "
            f"{campaign.arm_table.names[0]!r} to everybody; give an amount above 0"
        )
    arm, propensity = np.zeros(count, dtype=np.int64), np.ones(count)
    cost, value = np.zeros(count), np.full(count, np.nan)
    explored = np.zeros(count, dtype=bool)
    variant, version = np.full(count, None, dtype=object), np.full(count, None, dtype=object)
    for bucket in prepared.buckets:
        rows, given = bucket.rows, np.arange(len(bucket.rows))
        limit = total * len(rows) / max(prepared.taking_part, 1)
        arm[rows], propensity[rows] = _decided(bucket, limit, prepared, now)
        cost[rows] = bucket.cost[given, arm[rows]]
        if bucket.ready.model is not None:
            value[rows] = bucket.value[given, arm[rows]]
        # A row whose arms weren't all open is drawn by lot, too, but teaches nothing of those closed.
        explored[rows] = (bucket.variant.policy == "random") & bucket.eligible.all(axis=1)
        variant[rows], version[rows] = bucket.name, bucket.ready.version
    table, name = campaign.arm_table, prepared.experiment.name
    levels = np.array(table.level_names, dtype=object)[arm].reshape(count, len(table.factors))
    columns: dict[str, Any] = {
        "decision_id": [str(uuid7()) for _ in range(count)],
        "unit_id": prepared.ids,
        "decided_at": pd.Series(now, index=range(count)).astype(UTC_MICROSECONDS),
        "variant": variant,
        "arm": arm,
        "arm_name": np.array(table.names, dtype=object)[arm],
        **{factor: levels[:, place] for place, factor in enumerate(table.factors)},
        "propensity": propensity,
        "explored": explored,
        "holdout": prepared.held,
        "cost": cost,
        "value": value,
        "policy_version": [None if each is None else f"{name}/{each}" for each in variant],
        "model_version": version,
        **prepared.seen,
    }
    return pd.DataFrame(columns)


def _decided(
    bucket: Bucket, limit: float, prepared: Prepared, now: datetime
) -> tuple[np.ndarray, np.ndarray]:
    """The arm of each of the bucket's units and its probability, [n] each."""
    campaign, experiment = prepared.campaign, prepared.experiment
    count = len(bucket.rows)
    arm, sure = np.zeros(count, dtype=np.int64), np.ones(count)
    if not count or bucket.variant.policy == NOBODY:
        return arm, sure
    if bucket.ready.model is not None:
        floor, open_to = campaign.budget.min_return, bucket.eligible
        made = allocate(bucket.value, bucket.cost, limit, min_return=floor, eligible=open_to)
        return made.arm, sure
    # Lots are drawn anew in each epoch, as exploration is; buckets stay.
    ids, epoch = prepared.ids[bucket.rows], f"{experiment.name} {epoch_key(campaign, now)}"
    given = bucket.ready.arm
    if given is not None:
        may = bucket.eligible[:, given]
        chosen = np.where(may, given, 0)
        arm = ration(chosen, bucket.cost, limit, units=ids, salt=experiment.salt, epoch=epoch).arm
        share = float((arm == given).sum() / max(may.sum(), 1))
        return arm, np.where(arm == given, share, np.where(may, 1 - share, 1.0))
    trial = sample_trial(
        ids,
        replace(campaign.arm_table, costs=bucket.cost[0]),
        budget=limit,
        size=count,
        epoch=epoch,
        salt=experiment.salt,
        eligible=bucket.eligible,
    )
    arm[trial.row] = trial.arm
    arms = bucket.eligible.sum(axis=1)
    drawn = np.where(arms > 1, trial.share_got, 0.0)
    return arm, np.where(arm > 0, drawn / arms, drawn / arms + 1 - drawn)
