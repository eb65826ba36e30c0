"""How a campaign explores now: its epsilon, and the mixture of trial, directed draws and greedy arms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from campaigns.errors import DataError
from campaigns.exploration import Exploration
from campaigns.spec import Campaign
from serving.policy import strategies
from serving.policy.committee import choices_of, disagreement, vote_shares
from serving.policy.exploration import Draw, explore
from serving.policy.mixture import Drawn, Mixture, draw, mixture
from serving.policy.schedules import decaying
from serving.policy.spend import expected_exploration_cost, period_key
from serving.policy.strategies import Dial, dial


def epoch_kind(campaign: Campaign) -> str:
    """The epoch of the draws: the budget's period; a day where the budget has none."""
    per = campaign.budget.per
    return "day" if per in ("total", "unit") else per


def epoch_key(campaign: Campaign, now: datetime) -> str:
    """Its name, in UTC."""
    return period_key(epoch_kind(campaign), now)


def epoch_number(campaign: Campaign, began: datetime | None, now: datetime) -> int:
    """Which epoch of the campaign this is, the one of its first decision being 1."""
    if began is None or began >= now:
        return 1
    first, this = began.astimezone(UTC), now.astimezone(UTC)
    kind = epoch_kind(campaign)
    if kind == "month":
        return 1 + 12 * (this.year - first.year) + this.month - first.month
    if kind == "hour":
        hours = [int(each.timestamp() // 3600) for each in (first, this)]
        return 1 + hours[1] - hours[0]
    days = [each.toordinal() for each in (first, this)]
    if kind == "week":  # from Monday; ordinal 1 was one
        days = [(each - 1) // 7 for each in days]
    return 1 + days[1] - days[0]


def asked_epsilon(campaign: Campaign, began: datetime | None, now: datetime) -> float:
    """The campaign's epsilon now.

    Args:
        campaign: Gives strategy and schedule.
        began: When its first decision was made; None: not yet.
        now: The moment.
    """
    rules = campaign.exploration
    if rules.strategy != "schedule" or rules.schedule is None:
        return rules.epsilon
    falls = decaying(rules.epsilon, floor=rules.schedule.end, half=rules.schedule.half)
    return falls(epoch_number(campaign, began, now))


@dataclass(frozen=True, eq=False)
class Explorer:
    """Draws N units' arms by the campaign's strategy.

    Attributes:
        rules: The campaign's.
        eligible: Which arms a unit may get, [N, A] bool; control among them.
        cost: Of each arm over control, [N, A].
        epsilon: What is asked now, before any cap.
        votes: The share of an ensemble's members that give each arm, [N, A]; None: none are asked.
        dialled: How directed draws follow from disagreement, at ``epsilon``.
    """

    rules: Exploration
    eligible: np.ndarray
    cost: np.ndarray
    epsilon: float
    votes: np.ndarray | None = None
    dialled: Dial | None = None

    def expected_cost(self, greedy: np.ndarray | None = None) -> float:
        """What one drawn unit costs exploration on average: all of a trial's arm, and of a directed
        draw what it costs where it isn't the greedy arm, [N] (None: control)."""
        even = expected_exploration_cost(self.cost, self.eligible)
        if self.votes is None or not self.epsilon or not len(self.cost):
            return even
        plan = self.plan(np.zeros(len(self.cost), np.int64), self.epsilon)
        others = plan.chances * self.cost
        if greedy is not None:
            others[np.arange(len(others)), greedy] = 0.0
        aimed = plan.directed * others.sum(axis=1)
        return (plan.trial * even + float(aimed.mean())) / max(float(plan.epsilon.mean()), 1e-12)

    def plan(self, greedy: np.ndarray, rate: float) -> Mixture:
        """What is drawn with which probability at a rate of at most ``epsilon``."""
        if self.votes is None:
            return mixture(greedy, self.eligible, trial=rate)
        if self.rules.strategy == "thompson":
            return strategies.thompson(
                greedy, self.eligible, self.votes, rate=rate, floor=self.rules.floor
            )
        if self.dialled is None:
            raise DataError("exploration.strategy 'directed' has no dial; train the model again")
        less = rate / self.epsilon if self.epsilon else 0.0
        at = self.dialled
        dialled = Dial(at.trial * less, at.base * less, at.slope * less)
        return strategies.directed(greedy, self.eligible, self.votes, dialled)

    def draw(self, greedy: np.ndarray, rate: float, ids: list[str], epoch: str) -> Drawn:
        """The arms given, sticky within an epoch."""
        rules = self.rules
        if self.votes is None:
            given = explore(greedy, self.eligible, rate, ids, epoch, rules.salt, rules.holdout)
            return _undirected(given)
        return draw(self.plan(greedy, rate), ids, epoch, rules.salt, rules.holdout)

    def epsilons(self, rate: float) -> np.ndarray:
        """The probability that each unit's arm is drawn, [N]."""
        if self.votes is None:
            return np.full(len(self.eligible), rate)
        return self.plan(np.zeros(len(self.eligible), np.int64), rate).epsilon


def votes_of(value: np.ndarray, cost: np.ndarray, price: float, eligible: np.ndarray) -> np.ndarray:
    """The share of members that would give each arm at the price, [N, A].

    Args:
        value: Each member's value of each arm over control, [M, N, A].
        cost: Of each arm over control, [N, A], or a member's own, [M, N, A].
        price: lambda.
        eligible: [N, A] bool.
    """
    return vote_shares(choices_of(value, cost, price, eligible), value.shape[2])


def find_dial(rules: Exploration, votes: np.ndarray, epsilon: float) -> Dial:
    """The dial for a population with these votes, [N, A]."""
    arms = votes.shape[1]
    return dial(disagreement(votes), epsilon=epsilon, floor=rules.floor, arms=arms)


def _undirected(given: Draw) -> Drawn:
    nobody = np.zeros(len(given.arm), dtype=bool)
    return Drawn(
        given.arm,
        given.propensity,
        given.explored,
        given.explored_propensity,
        given.holdout,
        nobody,
    )
