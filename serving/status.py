"""What a campaign is doing now: for people (JSON) and for Prometheus.

All numbers come from the event store's ledger, so that every replica says the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from campaigns.errors import UpdraftError
from campaigns.limits import counted
from serving.exploring import asked_epsilon
from serving.ledger import Ledger
from serving.limits import accounts
from serving.pacing import elapsed, paced_price
from serving.policy.spend import effective_epsilon, expected_exploration_cost, period_key
from serving.service import Deployed, Service


class BudgetStatus(BaseModel):
    per: str
    period: str = Field(description="Its name, in UTC; 'total' where it never ends.")
    amount: float
    spent: float = Field(description="Expected cost of what was given in this period.")
    left: float


class ExplorationStatus(BaseModel):
    strategy: str
    epsilon: float = Field(description="As the campaign asks now.")
    cap: float = Field(description="What exploration may cost in this period.")
    spent: float
    holdout: float = Field(description="Share of units that are never treated.")


class LimitStatus(BaseModel):
    limit: str
    period: str
    at_most: float
    used: float = Field(description="By what was decided in this period.")


class CampaignStatus(BaseModel):
    """A campaign as it is served now."""

    campaign: str
    description: str
    healthy: bool
    fault: str | None = Field(description="Why it isn't served as it should be.")
    model_version: str
    policy_version: str
    arms: list[str]
    outcomes: list[str]
    price: float = Field(description="lambda now: value asked of one unit of cost.")
    epsilon: float = Field(description="Share decided at random now.")
    epsilon_reason: str = Field(description="Why that isn't what the campaign asks.")
    budget: BudgetStatus
    limits: list[LimitStatus] = Field(description="Those that are counted decision by decision.")
    exploration: ExplorationStatus
    decisions: int = Field(description="So far, over all periods.")
    by_arm: dict[str, int]
    explored: int
    held_out: int


class Health(BaseModel):
    status: str = Field(description="'ok', or what is wrong.")
    campaigns: dict[str, str] = Field(description="The version served of each.")


def describe(service: Service, name: str, now: datetime | None = None) -> CampaignStatus:
    """The campaign now.

    Raises:
        Refused: 404.
    """
    deployed = service.find(name)
    campaign, now = deployed.campaign, now or datetime.now(UTC)
    rules, per = campaign.exploration, campaign.budget.per
    period = period_key(per, now)
    kept = accounts(campaign, now)
    spent = service.store.ledger_of(campaign, now)
    total = service.store.ledger(name)
    amount = _amount(deployed, spent)
    left = max(amount - spent.spend, 0.0)
    cap = rules.max_spend_share * amount
    asked = asked_epsilon(campaign, spent.began, now)
    exploring = effective_epsilon(
        asked,
        spent.exploration_spend,
        cap,
        expected_exploration_cost(campaign.arm_table.costs),
    )
    used_up = left <= 0 and campaign.arm_table.costs.any()
    return CampaignStatus(
        campaign=name,
        description=campaign.description,
        healthy=service.fault(name) is None,
        fault=service.fault(name),
        model_version=deployed.version,
        policy_version=campaign.hash,
        arms=list(campaign.arm_table.names),
        outcomes=list(campaign.outcomes),
        price=paced_price(
            deployed.model.price,
            min_return=campaign.budget.min_return,
            spent=spent.spend,
            budget=amount,
            elapsed=elapsed(campaign.budget, now),
        ),
        epsilon=0.0 if used_up else exploring.epsilon,
        epsilon_reason="The period's budget is used up." if used_up else exploring.reason,
        budget=BudgetStatus(per=per, period=period, amount=amount, spent=spent.spend, left=left),
        limits=[
            LimitStatus(
                limit=limit.title,
                period=kept[limit.title][1],
                at_most=limit.at_most,
                used=spent.uses[kept[limit.title]],
            )
            for limit in counted(campaign.limits)
        ],
        exploration=ExplorationStatus(
            strategy=rules.strategy,
            epsilon=asked,
            cap=cap,
            spent=spent.exploration_spend,
            holdout=rules.holdout,
        ),
        decisions=total.decisions,
        by_arm=service.store.by_arm(name),
        explored=total.explored,
        held_out=total.holdout,
    )


def _amount(deployed: Deployed, spent: Ledger) -> float:
    budget = deployed.campaign.budget
    return budget.amount * (spent.decisions + 1) if budget.per == "unit" else budget.amount


def health(service: Service) -> Health:
    """Whether decisions can be made and recorded."""
    versions = {name: service.find(name).version for name in service.campaigns}
    problems = [f"{name}: {service.fault(name)}" for name in versions if service.fault(name)]
    try:
        for name in versions:
            service.store.ledger(name)
    except UpdraftError as error:
        problems.append(str(error))
    return Health(status="; ".join(problems) or "ok", campaigns=versions)


class Monitor(Collector):
    """The numbers of /metrics: campaigns from the event store, requests of this replica."""

    def __init__(self, service: Service, replica: str) -> None:
        self._service, self._replica = service, replica
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._seconds = Histogram(
            "updraft_request_seconds",
            "Time to answer a request, of one replica.",
            ["replica", "route", "status"],
            registry=self._registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._seconds.labels(self._replica, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return []  # the store isn't asked before somebody scrapes

    def collect(self) -> Iterable[Metric]:
        label = ["campaign"]
        decisions = CounterMetricFamily(
            "updraft_decisions", "Decisions by arm.", labels=["campaign", "arm"]
        )
        counters = {
            "explored": CounterMetricFamily(
                "updraft_explored_decisions", "Decisions drawn at random.", labels=label
            ),
            "held_out": CounterMetricFamily(
                "updraft_holdout_decisions",
                "Decisions on units that are never treated.",
                labels=label,
            ),
        }
        gauges = {
            "price": _gauge("updraft_price", "lambda: value asked of one unit of cost."),
            "epsilon": _gauge("updraft_epsilon", "Share decided at random now."),
            "budget": _gauge("updraft_period_budget", "The budget of this period."),
            "spend": _gauge("updraft_period_spend", "Spent in this period."),
            "cap": _gauge(
                "updraft_period_exploration_cap", "What exploration may cost in this period."
            ),
            "exploration": _gauge(
                "updraft_period_exploration_spend", "What exploration cost in this period."
            ),
            "limit": GaugeMetricFamily(
                "updraft_limit_used",
                "What this period has used of a limit, as a share.",
                labels=["campaign", "limit"],
            ),
            "healthy": _gauge("updraft_campaign_healthy", "1 where it is served as it should be."),
        }
        version = GaugeMetricFamily(
            "updraft_model_version",
            "1 for the version that decides.",
            labels=["campaign", "version"],
        )
        for name in self._service.campaigns:
            now = describe(self._service, name)
            for arm in now.arms:
                decisions.add_metric([name, arm], now.by_arm.get(arm, 0))
            for key, counter in counters.items():
                counter.add_metric([name], getattr(now, key))
            values = {
                "price": now.price,
                "epsilon": now.epsilon,
                "budget": now.budget.amount,
                "spend": now.budget.spent,
                "cap": now.exploration.cap,
                "exploration": now.exploration.spent,
                "healthy": float(now.healthy),
            }
            for key, value in values.items():
                gauges[key].add_metric([name], value)
            for limit in now.limits:
                if limit.at_most:
                    gauges["limit"].add_metric([name, limit.limit], limit.used / limit.at_most)
            version.add_metric([name, now.model_version], 1)
        return [decisions, *counters.values(), *gauges.values(), version]


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["campaign"])
