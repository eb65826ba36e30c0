"""A ranked trial: scores sorted once, ties merged, then running sums for any number of weights.

Everything that draws a curve starts here. Rows are sorted by descending score once; a curve has one
point at (0, 0) and one at the end of each block of equal scores, so that the order of the rows never
matters. Weights come as [R, N], R replicates at a time: the estimate is one replicate of the rows'
own weights, the bootstrap many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checks import (
    Array,
    Counts,
    Index,
    Mask,
    arm_indices,
    both_groups,
    inverse_propensities,
    numbers,
    weights,
)
from models.metrics.points import Points


@dataclass(frozen=True)
class Ranked:
    """A trial's rows by descending score.

    order: [N] row numbers; ends: [M] how many rows lie at or above each distinct score, None where
    all scores differ; the others [N] are the trial's columns in that order.
    """

    order: Index
    ends: Index | None
    y: Array
    treated: Mask
    control: Mask
    inverse: Array | None


@dataclass(frozen=True)
class Trial:
    """Outcomes, scores and groups of the N rows of a randomized comparison (already checked).

    A row may be in neither group (it got another arm): it counts as a unit and nothing else.
    ``inverse`` is 1 / propensity of the arm given. ``cost`` is the observed cost, ``unit_cost`` the
    cost known beforehand of treating the row.
    """

    y: Array
    score: Array
    treated: Mask
    control: Mask
    weight: Array
    inverse: Array | None = None
    cost: Array | None = None
    unit_cost: Array | None = None

    @cached_property
    def ranked(self) -> Ranked:
        """The rows by descending score; the only sort."""
        order = np.argsort(self.score)[::-1]
        scores = self.score[order]
        last = scores[1:] != scores[:-1]
        ends = None if last.all() else np.append(np.flatnonzero(last) + 1, len(order))
        treated = self.treated[order]
        return Ranked(
            order=order,
            ends=ends,
            y=self.y[order],
            treated=treated,
            control=~treated if self.complete else self.control[order],
            inverse=None if self.inverse is None else self.inverse[order],
        )

    @cached_property
    def complete(self) -> bool:
        """Whether every row is treated or control."""
        return bool((self.treated | self.control).all())

    @cached_property
    def binary(self) -> bool:
        """Whether every outcome is 0 or 1."""
        return bool(((self.y == 0) | (self.y == 1)).all())

    @cached_property
    def whole(self) -> bool:
        """Whether the weights are counts of rows, of which no part can be taken."""
        return bool((self.weight == np.floor(self.weight)).all())

    @cached_property
    def best_for_qini(self) -> Trial:
        """The same rows in the best order in hindsight: treated by y, control by -y."""
        return replace(self, score=np.where(self.treated, self.y, -self.y))

    def points(self, weight: Array | Counts | None = None) -> Points:
        """Cumulative sums under ``weight`` [R, N]; under the rows' own as one replicate if None."""
        return Points(self, self.weight[None] if weight is None else weight)


def check_trial(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    cost: ArrayLike | None = None,
) -> Trial:
    """Check the arguments that every metric shares and make the trial of them.

    Raises:
        DataError: shapes differ, something isn't finite, treatment isn't 0 / 1, a propensity is
            outside (0, 1], a weight is negative, or one of the two groups is empty.
    """
    y = numbers("y_true", y_true)
    rows = len(y)
    treated = arm_indices("treatment", treatment, rows, arms=2) == 1
    trial = Trial(
        y=y,
        score=numbers("score", score, (rows,)),
        treated=treated,
        control=~treated,
        weight=weights(weight, rows),
        inverse=inverse_propensities(propensity, rows),
        cost=None if cost is None else numbers("cost", cost, (rows,)),
    )
    both_groups(trial.treated, trial.control, trial.weight)
    return trial
