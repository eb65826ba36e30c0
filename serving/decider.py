"""One decision: from features and the state of the budget to an arm with its true probability.

Nothing here knows of HTTP, Ray or a database: :func:`assess` asks the model, :func:`decide` chooses.
They are apart so that the slow one is done before the campaign's ledger is locked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
from uuid6 import uuid7

from campaigns.errors import DataError, choices
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from serving.ledger import Ledger
from serving.pacing import elapsed, paced_price
from serving.policy.allocation import decide as best_arm
from serving.policy.exploration import Draw, explore
from serving.policy.spend import (
    effective_epsilon,
    expected_exploration_cost,
    guard_budget,
    period_key,
)
from serving.records import Decision, Feature


class Model(Protocol):
    """What serving needs of a model (:class:`models.uplift_model.UpliftModel` is one)."""

    @property
    def campaign(self) -> Campaign: ...

    @property
    def price(self) -> float:
        """lambda at the campaign's budget."""
        ...

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Expected potential outcomes [N, A, K] from the features' columns [N]."""
        ...


@dataclass(frozen=True, slots=True)
class Unit:
    """Who is decided on, with the features as seen; None is missing.

    ``arms`` names what the unit may get (control always is); None = every arm.
    """

    unit_id: str
    features: Mapping[str, Feature]
    arms: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Assessed:
    """Units with what the model says of them: value and cost over control, eligible arms; all [N, A]."""

    units: Sequence[Unit]
    value: np.ndarray
    cost: np.ndarray
    eligible: np.ndarray

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, rows: slice) -> Assessed:
        return Assessed(self.units[rows], self.value[rows], self.cost[rows], self.eligible[rows])


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides: the campaign's rules, the model's version and its price, lambda at the budget."""

    campaign: Campaign
    model_version: str | None
    price: float


def assess(model: Model, units: Sequence[Unit]) -> Assessed:
    """Value and cost of every arm for every unit.

    Raises:
        DataError: The model answers something that is no number.
    """
    campaign = model.campaign
    predicted = np.asarray(model.predict(columns(units, campaign)), dtype=np.float64)
    expected = (len(units), len(campaign.arm_table), len(campaign.outcomes))
    if predicted.shape != expected or not np.isfinite(predicted).all():
        raise DataError(
            f"campaign {campaign.name!r}: the model answers {list(predicted.shape)} with "
            f"{int((~np.isfinite(predicted)).sum())} values that are no numbers; "
            f"it should be {list(expected)} numbers"
        )
    value, cost = value_and_cost(predicted, campaign)
    return Assessed(units, value, cost, _eligible(units, campaign))


def columns(units: Sequence[Unit], campaign: Campaign) -> dict[str, np.ndarray]:
    """The units' features as the model takes them: numbers with NaN, words with None, [N] each."""
    features = campaign.features
    table: dict[str, np.ndarray] = {}
    for name in features.numeric:
        seen = [unit.features.get(name) for unit in units]
        table[name] = np.array([math.nan if one is None else one for one in seen], dtype=np.float64)
    for name in features.categorical:
        table[name] = np.empty(len(units), dtype=object)
        table[name][:] = [unit.features.get(name) for unit in units]
    return table


def _eligible(units: Sequence[Unit], campaign: Campaign) -> np.ndarray:
    names = campaign.arm_table.names
    eligible = np.ones((len(units), len(names)), dtype=bool)
    for row, unit in enumerate(units):
        if unit.arms is None:
            continue
        unknown = [arm for arm in unit.arms if arm not in names]
        if unknown:
            raise DataError(f"arm {unknown[0]!r} is none of the campaign's: {choices(names)}")
        eligible[row] = [index == 0 or name in unit.arms for index, name in enumerate(names)]
    return eligible


def decide(
    assessed: Assessed, policy: Policy, ledger: Ledger, now: datetime | None = None
) -> list[Decision]:
    """Choose an arm for each unit, within what is left of the period's budget.

    The propensities are true given the ledger. While the budget can pay the dearest arm for
    everybody, all are decided at once; near its end one by one, so that it is never overspent.

    Args:
        assessed: N units.
        policy: Campaign, model version and price.
        ledger: What the period has seen so far.
        now: The moment of the decision (default: this one), UTC.
    """
    now = now or datetime.now(UTC)
    dearest = float(assessed.cost.max(initial=0.0))
    budget = budget_for(policy.campaign, ledger, len(assessed))
    plenty = ledger.spend + len(assessed) * dearest <= budget
    used_up = (
        ledger.spend >= budget_for(policy.campaign, ledger, 1)
        and policy.campaign.budget.per != "unit"
    )
    if plenty or used_up or len(assessed) <= 1:
        return _decide(assessed, policy, ledger, budget, now)
    decisions: list[Decision] = []
    for row in range(len(assessed)):
        one = assessed[row : row + 1]
        made = _decide(one, policy, ledger, budget_for(policy.campaign, ledger, 1), now)
        ledger = ledger.plus(made)
        decisions += made
    return decisions


def budget_for(campaign: Campaign, ledger: Ledger, units: int) -> float:
    """What the period may cost once so many more units are decided on."""
    if campaign.budget.per == "unit":
        return campaign.budget.amount * (ledger.decisions + units)
    return campaign.budget.amount


def _decide(
    assessed: Assessed, policy: Policy, ledger: Ledger, budget: float, now: datetime
) -> list[Decision]:
    campaign, cost = policy.campaign, assessed.cost
    rules = campaign.exploration
    ids = [unit.unit_id for unit in assessed.units]
    price = paced_price(
        policy.price,
        min_return=campaign.budget.min_return,
        spent=ledger.spend,
        budget=budget,
        elapsed=elapsed(campaign.budget, now),
    )
    greedy = best_arm(assessed.value, cost, price, assessed.eligible)
    exploring = effective_epsilon(
        rules.epsilon,
        ledger.exploration_spend,
        rules.max_spend_share * budget,
        expected_exploration_cost(cost, assessed.eligible),
        decisions=max(len(ids), 1),
    )
    guarded = guard_budget(
        greedy, cost, spent=ledger.spend, budget=budget, epsilon=exploring.epsilon
    )
    if not cost.any():  # arms that cost nothing need no budget
        guarded = type(guarded)(greedy, exploring.epsilon, "")
    epoch = epoch_key(campaign, now)
    drawn = explore(
        guarded.greedy_arm,
        assessed.eligible,
        guarded.epsilon,
        ids,
        epoch,
        rules.salt,
        rules.holdout,
    )
    reason = " ".join(filter(None, [exploring.reason, guarded.reason]))
    return records(assessed, drawn, policy, now, price, guarded.epsilon, reason)


def records(
    assessed: Assessed,
    drawn: Draw,
    policy: Policy,
    now: datetime,
    price: float,
    epsilon: float,
    reason: str = "",
) -> list[Decision]:
    """What was drawn for N units, as N decisions with ids of their own."""
    campaign, cost = policy.campaign, assessed.cost
    table, version = campaign.arm_table, campaign.hash
    period, epoch = period_key(campaign.budget.per, now), epoch_key(campaign, now)
    return [
        Decision(
            decision_id=str(uuid7()),
            campaign=campaign.name,
            unit_id=unit.unit_id,
            decided_at=now,
            arm=arm,
            arm_name=table.names[arm],
            levels=dict(zip(table.factors, table.level_names[arm])),
            propensity=float(drawn.propensity[row]),
            explored=bool(drawn.explored[row]),
            explored_propensity=_number(drawn.explored_propensity[row]),
            holdout=bool(drawn.holdout[row]),
            policy_version=version,
            model_version=policy.model_version,
            features=unit.features,
            cost=float(cost[row, arm]),
            price=price,
            epsilon=epsilon,
            epoch=epoch,
            period=period,
            reason="The unit is held out." if drawn.holdout[row] else reason,
        )
        for row, (unit, arm) in enumerate(zip(assessed.units, drawn.arm.tolist()))
    ]


def epoch_key(campaign: Campaign, now: datetime) -> str:
    """The epoch of the draws: the budget's period; a day where the budget has none."""
    per = campaign.budget.per
    return period_key("day" if per in ("total", "unit") else per, now)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
