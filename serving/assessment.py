"""What a model says of units, before anything is decided: worth, cost, eligible arms, uses of limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from campaigns.errors import DataError, choices
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from serving.limits import Columns, may_get, sums
from serving.policy.limits import Limit
from serving.records import Feature


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


@runtime_checkable
class Priced(Protocol):
    """A model that knows what its campaign's other limits are worth."""

    @property
    def limit_prices(self) -> Mapping[str, float]:
        """The price of each limit, by its name."""
        ...


@runtime_checkable
class Committee(Protocol):
    """A model of several members, whose disagreement says where it is unsure."""

    @property
    def dial(self) -> Mapping[str, float] | None:
        """How directed draws follow from disagreement; None where it was trained for none."""
        ...

    def predict_members(self, columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Each member's expected potential outcomes, [M, N, A, K]; None where it has none."""
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
    """Units with what the model says of them: value and cost over control, eligible arms; all [N, A].

    ``limits`` are the campaign's as sums over these units; ``members`` each member's value, [M, N, A],
    where exploration asks for it.
    """

    units: Sequence[Unit]
    value: np.ndarray
    cost: np.ndarray
    eligible: np.ndarray
    limits: tuple[Limit, ...] = ()
    members: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, rows: slice) -> Assessed:
        return Assessed(
            self.units[rows],
            self.value[rows],
            self.cost[rows],
            self.eligible[rows],
            tuple(limit.rows(rows) for limit in self.limits),
            None if self.members is None else self.members[:, rows],
        )


def assess(model: Model, units: Sequence[Unit], table: Columns | None = None) -> Assessed:
    """Value and cost of every arm for every unit.

    Args:
        model: Answers for its campaign.
        units: N of them.
        table: What more is known of them than features, for limits that ask for it, [N] each.

    Raises:
        DataError: The model answers something that is no number.
    """
    campaign = model.campaign
    seen = columns(units, campaign)
    everyone = _members(model, seen) if campaign.exploration.asks_members else None
    asked = model.predict(seen) if everyone is None else everyone.mean(axis=0)
    predicted = np.asarray(asked, dtype=np.float64)
    expected = (len(units), len(campaign.arm_table), len(campaign.outcomes))
    if predicted.shape != expected or not np.isfinite(predicted).all():
        raise DataError(
            f"campaign {campaign.name!r}: the model answers {list(predicted.shape)} with "
            f"{int((~np.isfinite(predicted)).sum())} values that are no numbers; "
            f"it should be {list(expected)} numbers"
        )
    value, cost = value_and_cost(predicted, campaign)
    members = None
    if everyone is not None:
        members = np.stack([value_and_cost(each, campaign)[0] for each in everyone])
    eligible = _eligible(units, campaign)
    if not campaign.limits:
        return Assessed(units, value, cost, eligible, members=members)
    known = {**(table or {}), **seen}
    eligible &= may_get(campaign, known, len(units))
    limits = sums(campaign, known, cost, predicted)
    return Assessed(units, value, cost, eligible, limits, members)


def _members(model: Model, seen: Columns) -> np.ndarray:
    found = model.predict_members(seen) if isinstance(model, Committee) else None
    if found is None:
        campaign = model.campaign
        raise DataError(
            f"campaign {campaign.name!r}: exploration.strategy {campaign.exploration.strategy!r} asks "
            "the members of an ensemble, and this model has none; train one with "
            "model.config.members of at least 2, or choose 'epsilon_greedy' or 'schedule'"
        )
    return np.asarray(found, dtype=np.float64)


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


def feature_columns(table: pd.DataFrame, campaign: Campaign) -> Columns:
    """A table's features, [N] each: what limits may ask for."""
    return {name: table[name].to_numpy() for name in campaign.features.names}
