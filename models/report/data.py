"""What a run's report says: plain dataclasses that go into JSON and come back from it.

Every part may be missing, so that steps can put it together one after the other; the page leaves out
what isn't there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from campaigns.errors import DataError
from campaigns.spec import Campaign
from models.checks.covariates import CovariateCheck
from models.checks.drift import DriftVerdict
from models.checks.srm import SampleRatio
from models.gate import Verdict
from models.metrics.intervals import Interval
from models.uplift_evaluation import UpliftEvaluation

T = TypeVar("T")


@dataclass(frozen=True)
class CampaignFacts:
    """The campaign, as far as the page tells of it.

    Attributes:
        arms: Names and unit costs of the arms, control first.
        outcomes: Name, and what one of it is worth, in words.
        budget: The budget in words.
        min_return: Smallest return that a unit of cost must bring.
    """

    name: str
    description: str
    unit: str
    hash: str
    arms: dict[str, float]
    outcomes: dict[str, str]
    budget: str
    min_return: float

    @classmethod
    def of(cls, campaign: Campaign) -> CampaignFacts:
        """From the campaign itself."""
        arms, budget = campaign.arm_table, campaign.budget
        return cls(
            name=campaign.name,
            description=campaign.description,
            unit=campaign.unit,
            hash=campaign.hash,
            arms=dict(zip(arms.names, arms.costs.tolist())),
            outcomes={
                name: "a cost" if o.role == "cost" else f"{o.kind}, worth {o.value:g}"
                for name, o in campaign.outcomes.items()
            },
            budget=f"{budget.amount:,g} per {budget.per}"
            if budget.per != "total"
            else f"{budget.amount:,g} in all",
            min_return=budget.min_return,
        )


@dataclass(frozen=True)
class PolicyRow:
    """What a policy would earn on the held-out rows, within the budget.

    Attributes:
        name: What people call it.
        value: Worth of the outcomes less ``min_return`` times the cost, per unit.
        cost: Expected cost per unit.
        mix: Share of the units that get each arm, in the order of the arms, [A].
        gain: Its value less that of treating nobody, paired.
        truth: The true value, where the world is simulated.
        warning: Why the value is to be read with care.
    """

    name: str
    value: Interval
    cost: float
    mix: list[float]
    gain: Interval | None = None
    truth: float | None = None
    warning: str | None = None


@dataclass(frozen=True)
class EstimatorRow:
    """The last policy's value by one off-policy estimator, with what speaks against it."""

    name: str
    value: Interval
    warning: str | None = None


@dataclass(frozen=True)
class Density:
    """A distribution over the units: density ``y`` at ``x``."""

    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class PartsDensity:
    """How an outcome's uplift splits: what any treatment does (base), what each arm adds to that.

    Attributes:
        incremental: By arm.
    """

    outcome: str
    base: Density
    incremental: dict[str, Density]


@dataclass(frozen=True)
class RunReport:
    """Everything on the page.

    Attributes:
        campaign: What it is about.
        run: Facts of the run by label, such as rows, period, net, versions; in their order.
        policies: The policies that were compared; the last ones stand out.
        estimators: The last one's value by every estimator.
        budget_per_unit: What the budget pays for one unit.
        verdict: The gate's.
        evaluation: Uplift metrics, curves and deciles of the challenger.
        parts: How its uplifts split, where the net says so.
        sample_ratio: The trial's check.
        covariates: Whether its arms hold the same kind of units.
        drift: The drift verdict.
        drift_link: Where Evidently's report lies, relative to the page.
        notes: Sentences to read first.
        held_out: The rows' units are those that no model of ours was trained on.
    """

    campaign: CampaignFacts
    run: dict[str, str] = field(default_factory=dict)
    policies: list[PolicyRow] = field(default_factory=list)
    estimators: list[EstimatorRow] = field(default_factory=list)
    budget_per_unit: float | None = None
    verdict: Verdict | None = None
    evaluation: UpliftEvaluation | None = None
    parts: list[PartsDensity] = field(default_factory=list)
    sample_ratio: SampleRatio | None = None
    covariates: CovariateCheck | None = None
    drift: DriftVerdict | None = None
    drift_link: str | None = None
    notes: list[str] = field(default_factory=list)
    held_out: bool = True

    def to_json(self) -> str:
        """The whole as JSON (undefined numbers as NaN, which Python's JSON reads)."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunReport:
        """From :meth:`to_json`."""
        return read_as(cls, json.loads(text))


def read_as(kind: type[T], saved: Mapping[str, Any]) -> T:
    """A part of the report from the JSON object that a step wrote with ``dataclasses.asdict``.

    Raises:
        DataError: It is no such part; says the first field that doesn't fit.
    """
    try:
        return TypeAdapter(kind).validate_python(saved)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{kind.__name__}: {where}: {first['msg'].lower()}") from error
