"""Treatment factors of a campaign: levels without an order, or doses."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from campaigns.errors import choices
from campaigns.part import Finite, NotNegative, Part, text


class Level(Part):
    """A value that a treatment factor can take."""

    cost: NotNegative = Field(0.0, description="What giving it once costs, in the budget's unit.")


class Dose(Part):
    """A continuous factor's range. Decisions are made over an even grid of ``steps`` doses."""

    min: Finite = Field(description="Smallest dose: control.")
    max: Finite = Field(description="Largest dose.")
    steps: int = Field(
        6, ge=2, le=100, description="Doses that are decided on, both ends included."
    )
    cost: NotNegative = Field(0.0, description="Cost per unit of dose above the smallest.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max <= self.min:
            raise ValueError(f"max ({self.max:g}) must be above min ({self.min:g})")
        if len(set(self.names)) < self.steps:
            raise ValueError(f"min ({self.min}) and max ({self.max}) are too close to tell apart")
        return self

    @property
    def names(self) -> list[str]:
        """The doses of the grid as texts, ascending."""
        digits = 11 - math.floor(math.log10(max(abs(self.min), abs(self.max))))
        doses = np.linspace(self.min, self.max, self.steps)
        return [text(round(dose, digits)) for dose in doses.tolist()]

    @property
    def costs(self) -> list[float]:
        """What giving each of them costs over control."""
        return [self.cost * (float(name) - self.min) for name in self.names]

    def position(self, doses: np.ndarray) -> np.ndarray:
        """Where doses [...] lie in the range, from 0 (control) to 1; linear."""
        return (np.asarray(doses, dtype=np.float64) - self.min) / (self.max - self.min)

    def nearest(self, doses: np.ndarray) -> np.ndarray:
        """The grid's text nearest to each dose [N], [N] object."""
        place = np.rint(self.position(doses) * (self.steps - 1)).astype(np.int64)
        return np.array(self.names, dtype=object)[place.clip(0, self.steps - 1)]


class Factor(Part):
    """A category of treatment, such as the bonus that is offered."""

    column: str = Field(description="The log's column that says which level was given.")
    control: str | None = Field(None, description="The level that means 'not treated'.")
    levels: dict[str, Level] = {}
    dose: Dose | None = None

    @field_validator("control", mode="before")
    @classmethod
    def _control_is_text(cls, control: Any) -> Any:
        return text(control)

    @field_validator("levels", mode="before")
    @classmethod
    def _bare_levels(cls, levels: Any) -> Any:
        """``levels: {none: , coins: {cost: 0.3}}`` and ``[none, coins]`` both read as one expects."""
        if isinstance(levels, list):
            return {str(name): {} for name in levels}
        if isinstance(levels, dict):
            return {str(name): ({} if level is None else level) for name, level in levels.items()}
        return levels

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.dose is None) == (not self.levels):
            raise ValueError("needs either 'levels' (with their costs) or 'dose' (min, max)")
        if self.dose and self.control not in (None, self.dose.names[0]):
            raise ValueError(
                f"control is {self.control!r}; a dose's control is its min: {self.dose.names[0]}"
            )
        if self.levels:
            if self.control not in self.levels:
                raise ValueError(
                    f"control is {self.control!r}; it must be one of the levels: {choices(self.levels)}"
                )
            if len(self.levels) < 2:
                raise ValueError("has one level only; name control and at least one treatment")
            if self.levels[self.control].cost:
                raise ValueError(f"control ({self.control!r}) costs something; control costs 0")
        return self

    @property
    def ordered_levels(self) -> list[str]:
        """The levels' names, control first; of a dose, those of its grid."""
        if self.dose:
            return self.dose.names
        return [str(self.control), *(name for name in self.levels if name != self.control)]

    @property
    def costs(self) -> dict[str, float]:
        """What giving each level costs."""
        if self.dose:
            return dict(zip(self.dose.names, self.dose.costs))
        return {name: level.cost for name, level in self.levels.items()}
