"""What the event store keeps: decisions and outcomes, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from campaigns.errors import DataError

Feature = float | str | None  # a number, a word, or missing

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, as it was made.

    Attributes:
        decision_id: UUIDv7.
        campaign: The campaign's name.
        unit_id: Who was decided on.
        decided_at: When, UTC.
        arm: Index of the arm given; 0 is control.
        arm_name: Its name.
        levels: The level of each factor, ``{factor: level}``.
        propensity: Marginal probability of that arm when it was given, in (0, 1].
        explored: It was drawn at random, not chosen.
        explored_propensity: Probability of that arm given that it was drawn; None where not explored.
        holdout: The unit is never treated.
        policy_version: What decided: the campaign's hash; in an experiment, its name and the variant.
        model_version: Which registered model, or None.
        features: As seen then; None is missing.
        cost: Expected cost, in the budget's unit.
        price: lambda then; None where none was used.
        epsilon: Share explored then; None where the decision comes from a trial.
        epoch: The epoch of the draws.
        period: The budget's period that pays.
        reason: Why it isn't simply the policy's choice ("" where it is).
        uses: What it uses of each limit, by (limit, period); counted in the ledger, not kept with it.
        exploration_cost: What of the cost is exploration's; counted likewise. None: all where explored.
    """

    decision_id: str
    campaign: str
    unit_id: str
    decided_at: datetime
    arm: int
    arm_name: str
    levels: Mapping[str, str]
    propensity: float
    explored: bool
    explored_propensity: float | None
    holdout: bool
    policy_version: str | None
    model_version: str | None
    features: Mapping[str, Feature]
    cost: float
    epoch: str
    period: str
    price: float | None = None
    epsilon: float | None = None
    reason: str = ""
    uses: Mapping[tuple[str, str], float] = field(default_factory=dict, compare=False)
    exploration_cost: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse a record that would poison what is learned from it.

        Raises:
            DataError: A propensity outside (0, 1], a time without a zone or a cost that is no number.
        """
        if not 0 < self.propensity <= 1:
            raise DataError(
                f"decision {self.decision_id}: propensity is {self.propensity}; it lies in (0, 1]"
            )
        if self.explored != (self.explored_propensity is not None):
            raise DataError(
                f"decision {self.decision_id}: explored is {self.explored} and explored_propensity "
                f"is {self.explored_propensity}; an explored decision has one, another has none"
            )
        if not math.isfinite(self.cost):
            raise DataError(f"decision {self.decision_id}: cost is {self.cost}; give a number")
        if self.decided_at.tzinfo is None:
            raise DataError(f"decision {self.decision_id}: decided_at has no time zone; give UTC")


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """What was observed after a decision.

    Attributes:
        decision_id: Which decision.
        outcome: The outcome's name.
        value: What was seen.
        observed_at: When; None = now.
        correct: Replace what was written before.
    """

    decision_id: str
    outcome: str
    value: float
    observed_at: datetime | None = None
    correct: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one item of many was not stored: its place, the field at fault and one sentence."""

    index: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class OutcomeReport:
    """What became of a set of outcomes.

    Attributes:
        stored: Written to the log; each is kept, whether or not it counts.
        repeated: Of those: had been reported before, and don't change what counts.
        problems: The items that were refused.
    """

    stored: int
    repeated: int
    problems: tuple[Problem, ...]


def to_micros(when: datetime) -> int:
    """Microseconds since 1970.

    Raises:
        DataError: The time has no zone.
    """
    if when.tzinfo is None:
        raise DataError(
            f"time {when.isoformat()} has no zone; give UTC, such as 2026-01-31T08:30:00Z"
        )
    return (when - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The moment, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)
