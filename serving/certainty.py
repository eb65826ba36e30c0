"""How sure the model is of what units were given: the ends of the value's interval, for tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from models.uncertainty import Intervals
from serving.assessment import Model


@runtime_checkable
class Unsure(Protocol):
    """A model that gives its uplifts intervals (:meth:`models.uplift_model.UpliftModel.intervals`)."""

    def intervals(self, columns: Mapping[str, np.ndarray]) -> Intervals | None: ...


def value_bounds(
    model: Model, columns: Mapping[str, np.ndarray], arm: np.ndarray
) -> dict[str, np.ndarray]:
    """``value_lower`` and ``value_upper`` of the arms that units were given, [N] each.

    Args:
        model: Empty where it has nothing to tell intervals by.
        columns: The units' features, [N] each.
        arm: [N].
    """
    found = model.intervals(columns) if isinstance(model, Unsure) else None
    if found is None:
        return {}
    given = np.arange(len(arm)), arm
    return {"value_lower": found.value_lower[given], "value_upper": found.value_upper[given]}
