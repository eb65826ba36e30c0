"""The campaign: everything a team says about one decision problem, checked when it is read."""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from campaigns.arms import ArmTable
from campaigns.errors import choices
from campaigns.exploration import Exploration, exploration_problems
from campaigns.limits import AnyLimit, limit_problems
from campaigns.part import Finite, Name, NotNegative, Part, Share, text
from campaigns.treatments import Factor

EVERY = "*"  # in a feature list: every column not named elsewhere

# Names that the decision frame keeps for itself (campaigns/frame.py).
RESERVED = frozenset(
    "decision_id unit_id decided_at arm propensity explored explored_propensity holdout "
    "policy_version model_version".split()
)


class SimulatorSource(Part):
    """A simulated world with a known truth."""

    kind: Literal["simulator"]
    world: str = Field(description="Name of the world.")
    rows: int = Field(100_000, ge=100, le=100_000_000, description="Logged decisions.")
    seed: int = Field(0, ge=0, description="The same seed gives the same log.")
    days: int = Field(28, ge=1, le=3650, description="Days that the log covers.")
    options: dict[str, float] = Field({}, description="Options of the world, such as effect_drift.")


class ParquetSource(Part):
    """A Parquet file, or a folder of them."""

    kind: Literal["parquet"]
    path: str = Field(
        description="Absolute, or relative to the campaign file or to UPDRAFT_HOME/data."
    )


class CsvSource(Part):
    """A CSV file with a header."""

    kind: Literal["csv"]
    path: str = Field(
        description="Absolute, or relative to the campaign file or to UPDRAFT_HOME/data."
    )


class EventsSource(Part):
    """Nothing but the decisions that Updraft itself has made and logged."""

    kind: Literal["events"]


Source = Annotated[
    SimulatorSource | ParquetSource | CsvSource | EventsSource, Field(discriminator="kind")
]


class Features(Part):
    """What is known of a unit when it is decided on; ``'*'`` means every column not named elsewhere."""

    numeric: list[str] = []
    categorical: list[str] = []

    @model_validator(mode="after")
    def _some_and_once(self) -> Self:
        names = self.names
        if not names:
            raise ValueError("names no feature: list at least one under 'numeric' or 'categorical'")
        twice = sorted({name for name in names if names.count(name) > 1 and name != EVERY})
        if twice:
            raise ValueError(f"names {choices(twice)} more than once")
        return self

    @property
    def names(self) -> list[str]:
        return [*self.numeric, *self.categorical]


class Outcome(Part):
    """A response that is observed after a decision (a task of the models)."""

    kind: Literal["binary", "count", "continuous"]
    value: Finite = Field(0.0, description="Worth of one unit of it, in the budget's unit.")
    role: Literal["reward", "cost"] = Field(
        "reward", description="'cost': its uplift is what an arm costs, in place of the unit cost."
    )

    @model_validator(mode="after")
    def _cost_has_no_value(self) -> Self:
        if self.role == "cost" and self.value:
            raise ValueError(
                "has role 'cost' and a value; a cost is counted by itself: leave value out"
            )
        return self


class Budget(Part):
    """What may be spent, and the smallest return worth spending on."""

    per: Literal["hour", "day", "week", "month", "total", "unit"] = "day"
    amount: NotNegative
    pacing: Literal["clock", "none"] = Field(
        "clock",
        description="'clock': the price of spending follows the period's clock, so that the budget "
        "lasts; 'none': the price stays, until the budget is used up.",
    )
    traffic: list[NotNegative] | None = Field(
        None,
        min_length=24,
        max_length=24,
        description="Arrivals of each hour of a day (UTC), on any scale: the clock follows them.",
    )
    min_return: NotNegative = Field(
        0.0,
        description="Treat only where value is at least this many times cost: "
        "1 where both are money, 0 to use all of the budget.",
    )

    @model_validator(mode="after")
    def _somebody_comes(self) -> Self:
        if self.traffic is not None and not sum(self.traffic) > 0:
            raise ValueError("traffic is 0 in every hour; give what a usual day has in each")
        return self


class ModelChoice(Part):
    """The net, and how it is tuned and trained."""

    name: str = "mtmt"
    search: bool = Field(True, description="Search its configuration before training.")
    trials: int = Field(6, ge=1, le=10_000, description="Trials of that search.")
    config: dict[str, Any] = Field({}, description="Fixed values of the net's configuration.")
    training: dict[str, Any] = Field({}, description="Fixed values of the training configuration.")


class Gate(Part):
    """What a challenger must show before it decides."""

    metric: Literal["policy_value"] = "policy_value"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_gain: Finite = Field(0.0, description="The gain's interval must lie above this.")


class Drift(Part):
    """When features have drifted so far that people should look, or the monitor retrains."""

    features: Literal["psi", "wasserstein", "ks", "jensenshannon", "kl_div"] = "psi"
    threshold: NotNegative = Field(0.2, description="A feature beyond it has drifted.")
    share: Share = Field(0.3, description="Share of drifted features that means drift of the data.")


class Attribution(Part):
    """When a logged decision's outcomes are complete (decisions that Updraft made itself)."""

    days: NotNegative = Field(7.0, description="Outcomes are awaited so long.")
    absent: Literal["zero", "unknown"] = Field(
        "zero", description="What an outcome is that was never reported in that time."
    )


class Campaign(Part):
    """One decision problem: whom to treat, with what, inside which budget."""

    name: Name
    description: str = ""
    unit: str
    source: Source
    timestamp: str
    features: Features
    treatments: dict[Name, Factor] = Field(min_length=1)
    arms: Literal["all"] | list[str | dict[str, str]] = "all"
    propensity: str = "uniform"
    outcomes: dict[Name, Outcome] = Field(min_length=1)
    sequence: list[str] = []
    budget: Budget
    limits: list[AnyLimit] = []
    exploration: Exploration = Exploration()
    model: ModelChoice = ModelChoice()
    gate: Gate = Gate()
    drift: Drift = Drift()
    attribution: Attribution = Attribution()

    @model_validator(mode="before")
    @classmethod
    def _salt_defaults_to_the_name(cls, data: Any) -> Any:
        if isinstance(data, dict):
            exploration = data.get("exploration") or {}
            if isinstance(exploration, dict) and not exploration.get("salt"):
                data = {**data, "exploration": {**exploration, "salt": str(data.get("name", ""))}}
        return data

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_are_texts(cls, arms: Any) -> Any:
        """``arms: [0, 15]`` and ``[{discount: 15}]`` name doses."""
        if not isinstance(arms, list):
            return arms
        return [
            {factor: text(level) for factor, level in arm.items()}
            if isinstance(arm, dict)
            else text(arm)
            for arm in arms
        ]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._clashes(), *self._sequence_problems(), *self._value_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        if len(self.arm_table) < 2:
            raise ValueError("arms: allows control only; name at least one treated combination")
        if problems := [*exploration_problems(self), *limit_problems(self)]:
            raise ValueError("; ".join(problems))
        return self

    def _clashes(self) -> list[str]:
        """Two parts of the campaign that claim one column."""
        roles: dict[str, list[str]] = {self.unit: ["unit"]}
        claims = [(self.timestamp, "timestamp")]
        claims += [(name, "features") for name in self.features.names if name != EVERY]
        if self.propensity not in ("uniform", "estimate"):
            claims.append((self.propensity, "propensity"))
        claims += [(f.column, f"treatments.{name}.column") for name, f in self.treatments.items()]
        claims += [(name, f"outcomes.{name}") for name in self.outcomes]
        for column, role in claims:
            roles.setdefault(column, []).append(role)
        problems = [
            f"column {column!r} is claimed by {' and '.join(role)}; it can be one of them"
            for column, role in roles.items()
            if len(role) > 1
        ]
        names = [*self.features.names, *self.outcomes, *self.treatments]
        problems += [
            f"{name!r} is a name that Updraft keeps for itself; rename that column"
            for name in names
            if name in RESERVED
        ]
        return problems

    def _sequence_problems(self) -> list[str]:
        known = choices(self.outcomes)
        return [
            f"sequence: {name!r} is no outcome; choose from {known}"
            for name in self.sequence
            if name not in self.outcomes
        ]

    def _value_problems(self) -> list[str]:
        problems = []
        costs = [name for name, outcome in self.outcomes.items() if outcome.role == "cost"]
        if len(costs) > 1:
            problems.append(f"outcomes: {choices(costs)} have role 'cost'; one outcome can have it")
        if not any(o.value for o in self.outcomes.values()):
            problems.append(
                "outcomes: none has a value; say what at least one is worth (value: 1.0)"
            )
        return problems

    @cached_property
    def arm_table(self) -> ArmTable:
        """The arms in the order of their index, control first.

        Raises:
            ValueError: An allowed combination names an unknown factor or level.
        """
        ordered = {name: factor.ordered_levels for name, factor in self.treatments.items()}
        costs = [factor.costs for factor in self.treatments.values()]
        control = tuple(levels[0] for levels in ordered.values())
        if self.arms == "all":
            combinations = list(itertools.product(*ordered.values()))
        else:
            combinations = [self._combination(arm, ordered) for arm in self.arms]
        unique = dict.fromkeys([control, *combinations])
        return ArmTable(
            names=tuple(_arm_name(arm, control) for arm in unique),
            factors=tuple(ordered),
            level_names=tuple(unique),
            levels=np.array(
                [[o.index(level) for o, level in zip(ordered.values(), arm)] for arm in unique],
                dtype=np.int64,
            ),
            costs=np.array([sum(of[level] for of, level in zip(costs, arm)) for arm in unique]),
            doses=tuple(
                tuple(f.dose.position(np.array(f.dose.names, float)).tolist()) if f.dose else ()
                for f in self.treatments.values()
            ),
        )

    def _combination(
        self, arm: str | dict[str, str], ordered: dict[str, list[str]]
    ) -> tuple[str, ...]:
        if isinstance(arm, str):
            if len(ordered) > 1:
                raise ValueError(
                    f"arms: {arm!r} is one level, and there are {len(ordered)} factors; "
                    "write each arm as {factor: level, ...}"
                )
            arm = {next(iter(ordered)): arm}
        unknown = [factor for factor in arm if factor not in ordered]
        if unknown:
            raise ValueError(f"arms: {unknown[0]!r} is no factor; choose from {choices(ordered)}")
        for factor, level in arm.items():
            if level not in ordered[factor]:
                raise ValueError(
                    f"arms: {level!r} is no level of {factor!r}; choose from {choices(ordered[factor])}"
                )
        return tuple(arm.get(factor, levels[0]) for factor, levels in ordered.items())

    @property
    def hash(self) -> str:
        """Twelve hex digits that change with anything the campaign says of the decision.

        Where the data lies is left out: the same campaign on another machine is the same campaign.
        """
        text = json.dumps(self.model_dump(mode="json", exclude={"source"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def values(self) -> np.ndarray:
        """Worth of one unit of each outcome, [K] (0 for a cost)."""
        return np.array([outcome.value for outcome in self.outcomes.values()])

    @property
    def cost_outcome(self) -> int | None:
        """Index of the outcome whose uplift is the cost, if the campaign has one."""
        for index, outcome in enumerate(self.outcomes.values()):
            if outcome.role == "cost":
                return index
        return None


def _arm_name(arm: tuple[str, ...], control: tuple[str, ...]) -> str:
    """``none``, ``coins``, ``coins+mail``: the levels that differ from control."""
    if len(arm) == 1:
        return arm[0]
    treated = [level for level, none in zip(arm, control) if level != none]
    return "+".join(treated) or "control"
