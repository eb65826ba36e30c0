"""One decision: from features and the state of the budget to an arm with its true probability.

Nothing here knows of HTTP, Ray or a database: :func:`assess` asks the model, :func:`decide` chooses.
They are apart so that the slow one is done before the campaign's ledger is locked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from uuid6 import uuid7

from campaigns.errors import DataError
from campaigns.spec import Campaign
from serving.assessment import Assessed, Committee, Model, Priced, Unit, assess, columns
from serving.caps import Cap, enough, find_caps, net_of_limits, shut
from serving.exploring import Explorer, asked_epsilon, epoch_key, find_dial, votes_of
from serving.ledger import Ledger
from serving.limits import accounts
from serving.pacing import elapsed, paced_price
from serving.policy.allocation import decide as best_arm
from serving.policy.exploration import Draw
from serving.policy.limits import Limit
from serving.policy.spend import effective_epsilon, guard_budget, period_key
from serving.policy.strategies import Dial
from serving.records import Decision

__all__ = [
    "Assessed",
    "Model",
    "Policy",
    "Unit",
    "assess",
    "columns",
    "decide",
    "epoch_key",
    "records",
    "require_dial",
]


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides: the campaign's rules, the model's version and its price, lambda at the budget.

    ``limit_prices`` are those of the campaign's other limits, by name; ``dial`` is of directed draws.
    """

    campaign: Campaign
    model_version: str | None
    price: float
    limit_prices: Mapping[str, float] = field(default_factory=dict)
    dial: Dial | None = None

    @classmethod
    def of(cls, model: Model, version: str | None) -> Policy:
        """A model's."""
        prices = model.limit_prices if isinstance(model, Priced) else {}
        dial = model.dial if isinstance(model, Committee) else None
        found = None if dial is None else Dial(**dial)
        return cls(model.campaign, version, model.price, prices, found)


def require_dial(model: Model) -> None:
    """Refuse to serve directed exploration by a model that was trained without.

    Raises:
        DataError: It has no dial.
    """
    rules = model.campaign.exploration
    if rules.strategy == "directed" and Policy.of(model, None).dial is None:
        raise DataError(
            f"campaign {model.campaign.name!r}: exploration.strategy 'directed' needs a dial, which a "
            "run finds; this model has none: run the campaign again"
        )


def decide(
    assessed: Assessed, policy: Policy, ledger: Ledger, now: datetime | None = None
) -> list[Decision]:
    """Choose an arm for each unit, within what is left of the period's budget.

    The propensities are true given the ledger. While the budget can pay the dearest arm for
    everybody, and every limit has room for it, all are decided at once; near an end one by one, so
    that nothing is ever overspent. An arm that no longer fits a limit isn't eligible.

    Args:
        assessed: N units.
        policy: Campaign, model version and price.
        ledger: What the period has seen so far.
        now: The moment of the decision (default: this one), UTC.
    """
    now = now or datetime.now(UTC)
    caps = find_caps(assessed.limits, policy.campaign, ledger, now)
    eligible, shutting = shut(assessed.eligible, caps)
    dearest = float(assessed.cost.max(initial=0.0))
    budget = budget_for(policy.campaign, ledger, len(assessed))
    plenty = ledger.spend + len(assessed) * dearest <= budget
    used_up = (
        ledger.spend >= budget_for(policy.campaign, ledger, 1)
        and policy.campaign.budget.per != "unit"
    )
    nobody_paid = used_up and bool(assessed.cost.any())
    together = (plenty or used_up) and (nobody_paid or enough(eligible, caps))
    if together or len(assessed) <= 1:
        assessed = replace(assessed, eligible=eligible)
        return _decide(assessed, policy, ledger, budget, now, caps, shutting)
    decisions: list[Decision] = []
    for row in range(len(assessed)):
        made = decide(assessed[row : row + 1], policy, ledger, now)
        ledger = ledger.plus(made)
        decisions += made
    return decisions


def budget_for(campaign: Campaign, ledger: Ledger, units: int) -> float:
    """What the period may cost once so many more units are decided on."""
    if campaign.budget.per == "unit":
        return campaign.budget.amount * (ledger.decisions + units)
    return campaign.budget.amount


def _decide(
    assessed: Assessed,
    policy: Policy,
    ledger: Ledger,
    budget: float,
    now: datetime,
    caps: list[Cap],
    shutting: list[str],
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
    prices = dict(policy.limit_prices)
    prices |= {
        cap.limit.name: cap.price(prices.get(cap.limit.name, 0.0), campaign, now) for cap in caps
    }
    value = net_of_limits(assessed.value, assessed.limits, prices)
    greedy = best_arm(value, cost, price, assessed.eligible)
    explorer = explorer_of(
        assessed, policy, prices, price, asked_epsilon(campaign, ledger.began, now)
    )
    exploring = effective_epsilon(
        explorer.epsilon,
        ledger.exploration_spend,
        rules.max_spend_share * budget,
        explorer.expected_cost(greedy),
        decisions=max(len(ids), 1),
    )
    guarded = guard_budget(
        greedy, cost, spent=ledger.spend, budget=budget, epsilon=exploring.epsilon
    )
    if not cost.any():  # arms that cost nothing need no budget
        guarded = type(guarded)(greedy, exploring.epsilon, "")
    drawn = explorer.draw(guarded.greedy_arm, guarded.epsilon, ids, epoch_key(campaign, now))
    common = (exploring.reason, guarded.reason)
    reasons = [" ".join(filter(None, [*common, one])) for one in shutting]
    epsilons = explorer.epsilons(guarded.epsilon)
    away = drawn.directed & (drawn.arm != guarded.greedy_arm)
    return records(assessed, drawn, policy, now, price, epsilons, reasons, away)


def explorer_of(
    assessed: Assessed,
    policy: Policy,
    prices: Mapping[str, float],
    price: float,
    epsilon: float,
    *,
    own_dial: bool = False,
) -> Explorer:
    """How these units are explored at the prices of the moment.

    Args:
        assessed: N units.
        policy: The campaign's rules, and the dial of directed draws.
        prices: Of the limits beside the budget.
        price: lambda.
        epsilon: What is asked now.
        own_dial: Find the dial for these units: they are a population of their own.
    """
    rules = policy.campaign.exploration
    votes, dial = None, policy.dial
    if assessed.members is not None:
        values = [net_of_limits(each, assessed.limits, prices) for each in assessed.members]
        votes = votes_of(np.stack(values), assessed.cost, price, assessed.eligible)
        if own_dial:
            dial = find_dial(rules, votes, epsilon)
    return Explorer(rules, assessed.eligible, assessed.cost, epsilon, votes, dial)


def records(
    assessed: Assessed,
    drawn: Draw,
    policy: Policy,
    now: datetime,
    price: float,
    epsilon: float | np.ndarray,
    reason: str | Sequence[str] = "",
    away: np.ndarray | None = None,
) -> list[Decision]:
    """What was drawn for N units, as N decisions with ids of their own.

    ``epsilon`` and ``reason`` are one for all, or one a unit. ``away`` says who was drawn away from the
    greedy arm outside the trial, [N] bool: what that costs is exploration's, too.
    """
    campaign, cost = policy.campaign, assessed.cost
    reasons = [reason] * len(assessed) if isinstance(reason, str) else reason
    used = uses_of(assessed.limits, drawn.arm, campaign, now)
    epsilons = np.broadcast_to(epsilon, len(assessed)).tolist()
    charged = drawn.explored if away is None else drawn.explored | away
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
            epsilon=epsilons[row],
            epoch=epoch,
            period=period,
            reason="The unit is held out." if drawn.holdout[row] else reasons[row],
            uses=used[row],
            exploration_cost=float(cost[row, arm]) if charged[row] else 0.0,
        )
        for row, (unit, arm) in enumerate(zip(assessed.units, drawn.arm.tolist()))
    ]


def uses_of(
    limits: Sequence[Limit], arm: np.ndarray, campaign: Campaign, now: datetime
) -> list[dict[tuple[str, str], float]]:
    """What each of N units, given these arms, uses of the limits that are counted."""
    used: list[dict[tuple[str, str], float]] = [{} for _ in arm]
    kept = accounts(campaign, now)
    for limit in limits:
        if limit.name in kept:
            use = np.broadcast_to(limit.use, (len(arm), len(campaign.arm_table)))
            given = use[np.arange(len(arm)), arm]
            for row in np.flatnonzero(given):
                used[row][kept[limit.name]] = float(given[row])
    return used


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
