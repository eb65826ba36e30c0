"""A ranked trial: scores sorted once, ties merged, then cumulative sums for any number of weights.

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
    Index,
    Mask,
    arm_indices,
    both_groups,
    inverse_propensities,
    numbers,
    weights,
)


@dataclass(frozen=True)
class Group:
    """The treated or the control rows of a ranking.

    rows: [n] row numbers by descending score; ends: [M + 1] how many of them lie at or above each
    point of the curve (0 at the start).
    """

    rows: Index
    ends: Index


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
    def everyone(self) -> Group:
        """All rows, ranked."""
        rows = np.argsort(-self.score)
        ranked = self.score[rows]
        last = np.append(ranked[1:] != ranked[:-1], True)
        return Group(rows, np.append(0, np.flatnonzero(last) + 1))

    @cached_property
    def groups(self) -> tuple[Group, Group]:
        """The treated and the control rows, ranked."""
        return self._group(self.treated), self._group(self.control)

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

    @cached_property
    def best_for_uplift(self) -> Trial:
        """The same rows in scikit-uplift's best order of binary outcomes (``perfect_uplift_curve``).

        Treated responders, then control non-responders, then the larger of the two other sets.
        """
        responders = self.weight[self.control & (self.y == 1)].sum()
        refusers = self.weight[self.treated & (self.y == 0)].sum()
        second = self.y if responders > refusers else self.treated
        return replace(self, score=2.0 * (self.y == self.treated) + second)

    def points(self, weight: Array | None = None) -> Points:
        """Cumulative sums under ``weight`` [R, N]; under the rows' own as one replicate if None."""
        return Points(self, self.weight[None] if weight is None else weight)

    def _group(self, members: Mask) -> Group:
        order = self.everyone
        inside = members[order.rows]
        counts = np.append(0, np.cumsum(inside))
        return Group(order.rows[inside], counts[order.ends])


class Points:
    """The cumulative sums at the M + 1 points of a trial's curve, for R replicates of weights.

    Inverse-propensity weights are scaled within each group so that the group keeps its head count
    (Hajek): with constant propensities they cancel, and the usual formulas come out.
    """

    def __init__(self, trial: Trial, weight: Array) -> None:
        self.trial = trial
        self.weight = weight
        self._treated, self._control = (self._weigh(group) for group in trial.groups)

    @cached_property
    def n_t(self) -> Array:
        """Treated units so far [R, M + 1]."""
        return cumulate(self._treated, self.trial.groups[0].ends)

    @cached_property
    def n_c(self) -> Array:
        """Control units so far [R, M + 1]."""
        return cumulate(self._control, self.trial.groups[1].ends)

    @cached_property
    def outcomes(self) -> tuple[Array, Array]:
        """Y_T and Y_C: sums of the outcomes of the treated and of control so far [R, M + 1]."""
        return self.sums(self.trial.y)

    @cached_property
    def units(self) -> Array:
        """Units so far, each with its own weight and no propensity [R, M + 1]."""
        if self.trial.complete and self.trial.inverse is None:
            return self.n_t + self.n_c
        return self.totals(np.ones(len(self.trial.y)))

    @cached_property
    def depth(self) -> Array:
        """Share of the units so far [R, M + 1], from 0 to 1."""
        return self.units / self.units[:, -1:]

    def sums(self, values: Array) -> tuple[Array, Array]:
        """Weighted sums of ``values`` [N] so far over the treated and over the control rows."""
        treated, control = self.trial.groups
        return (
            cumulate(self._treated * values[treated.rows], treated.ends),
            cumulate(self._control * values[control.rows], control.ends),
        )

    def totals(self, values: Array) -> Array:
        """Sums of ``values`` [N] so far over all units, each with its own weight [R, M + 1]."""
        order = self.trial.everyone
        return cumulate(self.weight.take(order.rows, axis=1) * values[order.rows], order.ends)

    def _weigh(self, group: Group) -> Array:
        weight = self.weight.take(group.rows, axis=1)
        if self.trial.inverse is None:
            return weight
        weighted = weight * self.trial.inverse[group.rows]
        heads, mass = weight.sum(axis=1), weighted.sum(axis=1)
        return weighted * (heads / np.where(mass > 0, mass, 1.0))[:, None]


def cumulate(values: Array, ends: Index) -> Array:
    """Running sums of ``values`` [R, n] at ``ends`` [M + 1], which count from 0."""
    running = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=running[:, 1:])
    return running.take(ends, axis=1)


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
