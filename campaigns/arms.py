"""Arms: one level of each treatment factor; arm 0 is control in every factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ArmTable:
    """The arms of a campaign, in the order of their index.

    Attributes:
        names: The arm's name, [A]; levels joined by ``+`` where there are several factors.
        factors: Names of the factors, [C].
        level_names: The level's name of each factor in each arm, [A][C].
        levels: Its index within its factor, [A, C] int64; 0 is control.
        costs: Unit cost, [A] float64: the sum over the factors' levels.
        doses: Where the levels of each factor lie in their dose's range, 0 (control) to 1,
            [C][levels]; empty for a factor whose levels have no order.
    """

    names: tuple[str, ...]
    factors: tuple[str, ...]
    level_names: tuple[tuple[str, ...], ...]
    levels: np.ndarray
    costs: np.ndarray
    doses: tuple[tuple[float, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def index(self, names: tuple[str, ...]) -> int | None:
        """The index of the arm with these levels, or None where the campaign doesn't allow it."""
        try:
            return self.level_names.index(names)
        except ValueError:
            return None
