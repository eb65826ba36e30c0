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

    ``limits`` are the campaign's as sums over these units.
    """

    units: Sequence[Unit]
    value: np.ndarray
    cost: np.ndarray
    eligible: np.ndarray
    limits: tuple[Limit, ...] = ()

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, rows: slice) -> Assessed:
        return Assessed(
            self.units[rows],
            self.value[rows],
            self.cost[rows],
            self.eligible[rows],
            tuple(limit.rows(rows) for limit in self.limits),
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
    predicted = np.asarray(model.predict(seen), dtype=np.float64)
    expected = (len(units), len(campaign.arm_table), len(campaign.outcomes))
    if predicted.shape != expected or not np.isfinite(predicted).all():
        raise DataError(
            f"campaign {campaign.name!r}: the model answers {list(predicted.shape)} with "
            f"{int((~np.isfinite(predicted)).sum())} values that are no numbers; "
            f"it should be {list(expected)} numbers"
        )
    value, cost = value_and_cost(predicted, campaign)
    eligible = _eligible(units, campaign)
    if not campaign.limits:
        return Assessed(units, value, cost, eligible)
    known = {**(table or {}), **seen}
    eligible &= may_get(campaign, known, len(units))
    return Assessed(units, value, cost, eligible, sums(campaign, known, cost, predicted))


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
