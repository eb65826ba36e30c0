"""Tensors: what a net is told about a campaign, a batch of its decisions, and what made the features.

``Shape`` is all a net may know of a campaign, ``Batch`` all that a training step sees. ``Encoder``
turns the columns of a table into feature tensors, ``OutcomeScaler`` outcomes into training targets
and predictions back into the outcomes' own units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from campaigns.errors import CampaignError, DataError, choices
from models.encoding import Encoder

__all__ = ["KINDS", "Batch", "Encoder", "OutcomeScaler", "Shape"]

KINDS = ("binary", "count", "continuous")


@dataclass(frozen=True)
class Shape:
    """The shape of a campaign, as far as a net is concerned.

    Attributes:
        numeric: Columns of ``x_num`` (F_n).
        categories: Number of ids of each column of ``x_cat``, id 0 (missing or rare) included, [F_c].
        levels: Level of each factor in each arm, [A][C]; arm 0 is control, level 0 of every factor.
        outcomes: Kind of each outcome: binary, count or continuous, [K].
        sequence: Outcomes (indices) of which each needs the one before, such as (visit, conversion).
        worth: Value of a unit of each outcome as it is scaled for training, [K]; empty: 1 each, and
            0 of the one that is a cost.
        costs: Unit cost of each arm, [A]; empty: 1 of each treated arm.
        cost_outcome: The outcome (index) that is what was paid, in place of the unit costs.
        cost_scale: Cost of a unit of that outcome as it is scaled for training.
        doses: Where the levels of each factor lie in their dose's range, ascending from 0 (control)
            to 1, [C][levels]; empty for a factor whose levels have no order, or of all: none has.

    Raises:
        CampaignError: A shape that no net could take.
    """

    numeric: int
    categories: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    outcomes: tuple[str, ...]
    sequence: tuple[int, ...] = ()
    worth: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()
    cost_outcome: int | None = None
    cost_scale: float = 1.0
    doses: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.features == 0:
            raise CampaignError("the campaign has no features; name at least one")
        if self.arms < 2:
            raise CampaignError(
                f"the campaign has {self.arms} arm(s); give control and a treatment"
            )
        if any(self.levels[0]) or len({len(arm) for arm in self.levels}) != 1:
            raise CampaignError(f"levels {self.levels}: arm 0 must be level 0 of every factor")
        if not self.outcomes or set(self.outcomes) - set(KINDS):
            raise CampaignError(
                f"outcomes {self.outcomes}: give at least one, each {choices(KINDS)}"
            )
        if set(self.sequence) - set(range(self.outcome_count)):
            raise CampaignError(
                f"sequence {self.sequence}: there are {self.outcome_count} outcomes"
            )
        if len(self.worth) not in (0, self.outcome_count) or len(self.costs) not in (0, self.arms):
            raise CampaignError(
                f"worth {self.worth}, costs {self.costs}: give one an outcome and one an arm, or none"
            )
        if len(self.doses) not in (0, self.factors) or not all(map(_rises, self.doses)):
            raise CampaignError(
                f"doses {self.doses}: give each factor's, ascending from 0 to 1, or none"
            )
        if any(0 < len(d) < n for d, n in zip(self.doses, self.factor_levels)):
            raise CampaignError(f"doses {self.doses}: there are {self.factor_levels} levels")

    @property
    def values(self) -> tuple[float, ...]:
        """Value of a unit of each scaled outcome, [K]."""
        ours = (0.0 if k == self.cost_outcome else 1.0 for k in range(self.outcome_count))
        return self.worth or tuple(ours)

    @property
    def arm_costs(self) -> tuple[float, ...]:
        """Unit cost of each arm, [A]; 0 for control."""
        return self.costs or (0.0, *[1.0] * (self.arms - 1))

    @property
    def dosed(self) -> tuple[int, ...]:
        """The factors that are doses."""
        return tuple(factor for factor, doses in enumerate(self.doses) if doses)

    @property
    def features(self) -> int:
        """Number of features, numeric and categorical."""
        return self.numeric + len(self.categories)

    @property
    def arms(self) -> int:
        """Number of arms, control included (A)."""
        return len(self.levels)

    @property
    def factors(self) -> int:
        """Number of treatment factors (C)."""
        return len(self.levels[0])

    @property
    def factor_levels(self) -> tuple[int, ...]:
        """Number of levels of each factor, control included, [C]."""
        return tuple(max(column) + 1 for column in zip(*self.levels))

    @property
    def outcome_count(self) -> int:
        """Number of outcomes (K)."""
        return len(self.outcomes)


@dataclass
class Batch:
    """Decisions and what came of them; every field is indexed by row first.

    Attributes:
        x_num: Numeric features, [B, F_n] float32.
        x_cat: Category ids, [B, F_c] int64.
        arm: Index of the arm that was given, [B] int64.
        y: Outcomes, as scaled for training, [B, K] float32.
        y_mask: 1 where the outcome was observed, else 0, [B, K] float32.
        propensity: Probability of the arm that was given, [B] float32.
        weight: Weight of the row in the loss, [B] float32; should average 1.
        unit: A number for the row's unit, [B] int64: rows of one unit share it.
        dose: Where the dose of each factor that was given lies in its range, [B, C] float32 in 0 to 1;
            negative (or [B, 1] of it) where there is none, or it is that of the arm.
    """

    x_num: Tensor
    x_cat: Tensor
    arm: Tensor
    y: Tensor
    y_mask: Tensor
    propensity: Tensor
    weight: Tensor
    unit: Tensor
    dose: Tensor

    @classmethod
    def of(
        cls,
        x_num: np.ndarray,
        x_cat: np.ndarray,
        arm: np.ndarray,
        y: np.ndarray,
        propensity: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        unit: np.ndarray | None = None,
        dose: np.ndarray | None = None,
    ) -> Batch:
        """From arrays; an outcome that is NaN was not observed, weights left out are 1, rows are
        units of their own unless ``unit`` says otherwise, and doses are those of the arms unless
        ``dose`` does.

        Raises:
            DataError: The arrays' lengths differ.
        """
        ones = np.ones(len(arm))
        arrays = (x_num, x_cat, arm, y, ones if propensity is None else propensity)
        weight = ones if weight is None else weight
        unit = np.arange(len(arm)) if unit is None else unit
        dose = -ones[:, None] if dose is None else dose
        if len(sizes := {len(array) for array in (*arrays, weight, unit, dose)}) != 1:
            raise DataError(
                f"a batch's arrays must be equally long; they have {sorted(sizes)} rows"
            )
        seen = ~np.isnan(y)
        return cls(
            x_num=_tensor(x_num, torch.float32),
            x_cat=_tensor(x_cat, torch.int64),
            arm=_tensor(arm, torch.int64),
            y=_tensor(np.where(seen, y, 0.0), torch.float32),
            y_mask=_tensor(seen, torch.float32),
            propensity=_tensor(arrays[4], torch.float32),
            weight=_tensor(weight, torch.float32),
            unit=_tensor(unit, torch.int64),
            dose=_tensor(dose, torch.float32),
        )

    def __len__(self) -> int:
        return len(self.arm)

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on a device."""
        return Batch(*(value.to(device, non_blocking=True) for value in self._values()))

    def select(self, index: Tensor) -> Batch:
        """The rows of an index ([n] int64)."""
        return Batch(*(value.index_select(0, index) for value in self._values()))

    def _values(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def _rises(doses: tuple[float, ...]) -> bool:
    """Whether doses start at 0 and ascend up to 1 at most; those of no dose do."""
    steps = zip((0.0, *doses[1:]), doses[1:])
    return not doses or (doses[0] == 0.0 and doses[-1] <= 1.0 and all(a < b for a, b in steps))


def _tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array)).to(dtype)


@dataclass(frozen=True)
class OutcomeScaler:
    """Outcomes to training targets: count and continuous ones standardised, binary ones as they are.

    The scaling is linear, so that effects scale back exactly.

    Attributes:
        shift, scale: Mean and standard deviation of each outcome, [K]; 0 and 1 where it is binary.
        start: Mean of each training target, [K]: a rate where binary, else 0. Give it to
            ``net.start_from`` so that training starts at the averages.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    start: tuple[float, ...]

    @classmethod
    def fit(cls, y: np.ndarray, kinds: Sequence[str]) -> OutcomeScaler:
        """From outcomes [N, K] (NaN = not observed) and the kind of each.

        Raises:
            DataError: An outcome that was never observed.
        """
        shift, scale, start = [], [], []
        for place, kind in enumerate(kinds):
            seen = y[:, place][~np.isnan(y[:, place])]
            if not len(seen):
                raise DataError(f"outcome {place} ({kind}) was never observed in {len(y)} rows")
            binary = kind == "binary"
            mean, spread = float(np.mean(seen)), float(np.std(seen))
            shift.append(0.0 if binary else mean)
            scale.append(1.0 if binary or spread == 0.0 else spread)
            start.append(mean if binary else 0.0)
        return cls(tuple(shift), tuple(scale), tuple(start))

    def apply(self, y: np.ndarray) -> np.ndarray:
        """Training targets of outcomes [..., K]."""
        return (y - np.array(self.shift)) / np.array(self.scale)

    def restore(self, outcomes: np.ndarray) -> np.ndarray:
        """Predicted outcomes [..., K] in their own units."""
        return outcomes * np.array(self.scale) + np.array(self.shift)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"shift": list(self.shift), "scale": list(self.scale), "start": list(self.start)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> OutcomeScaler:
        """From :meth:`to_dict`."""
        return cls(*(tuple(saved[name]) for name in ("shift", "scale", "start")))
