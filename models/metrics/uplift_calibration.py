"""Whether predicted uplift is right in size, not only in order, and an isotonic map that makes it so.

Both compare predictions t(x) with pseudo-effects psi of logged rows: noisy, but right on average
given x where the propensities are (explored rows).

* Calibration error (Xu & Yadlowsky, "Calibration error for heterogeneous treatment effects",
  AISTATS 2022):  E[(E[psi | t] - t)^2], over bins of t, without the bias that noise adds.
* Isotonic calibration (van der Laan et al., "Causal isotonic calibration for heterogeneous
  treatment effects", ICML 2023):  the rising f that minimises sum_i w_i (psi_i - f(t_i))^2.

Where the papers are silent we chose: bins hold equal numbers of rows and never part equal predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.checks import (
    Array,
    arm_indices,
    both_groups,
    inverse_propensities,
    numbers,
    weights,
)
from models.metrics.intervals import Interval, bootstrap_draws, percentile_interval


def pseudo_effects(
    outcome: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    *,
    q_hat: ArrayLike | None = None,
    treated: int = 1,
    control: int = 0,
) -> Array:
    """A row's unbiased, noisy effect of an arm against control [N].

        psi = q_1 - q_0 + 1[a = 1] (y - q_1) / e - 1[a = 0] (y - q_0) / e

    Without ``q_hat`` both q are the outcomes' inverse-propensity weighted mean in the two arms.

    Args:
        outcome, arm: observed outcome, and the arm that was given [N].
        propensity: probability of the arm that was given, in (0, 1] [N].
        q_hat: predicted outcome of every arm [N, A], from a model that never saw the row's own.
        treated, control: the arms to compare.

    Source: Kennedy, "Towards optimal doubly robust estimation of heterogeneous causal effects",
    EJS 2023 (the DR-learner's pseudo-outcome).
    """
    y = numbers("outcome", outcome)
    inverse = inverse_propensities(propensity, len(y))
    if inverse is None:
        raise DataError("metrics: propensity is missing; pseudo-effects can't do without.")
    if treated == control:
        raise DataError(f"metrics: treated and control are both {treated}; name two arms.")
    predicted = None if q_hat is None else numbers("q_hat", q_hat, (len(y), None))
    arms = arm_indices("arm", arm, len(y), None if predicted is None else predicted.shape[1])
    given, kept = arms == treated, arms == control
    both_groups(given, kept, np.ones(len(y)))
    if predicted is None:
        usual = np.average(y, weights=inverse * (given | kept))
        one = zero = np.full(len(y), usual)
    else:
        one, zero = predicted[:, treated], predicted[:, control]
    effects: Array = one - zero + inverse * (given * (y - one) - kept * (y - zero))
    return effects


def uplift_calibration_error(
    predicted: ArrayLike,
    effect: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    bins: int = 10,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean squared error of the predictions' size; 0 where they are calibrated.

    With d = psi - t, S_b the rows of bin b and v its share of the weight:

        sum_b v_b  sum_{i != j in S_b} w_i w_j d_i d_j  /  sum_{i != j in S_b} w_i w_j

    Leaving i = j out takes the noise's bias away, so an estimate may fall below 0.

    Args:
        predicted: predicted uplift [N], of a model that never saw these rows.
        effect: their pseudo-effects [N], of :func:`pseudo_effects`.
        weight: row weights [N].
        bins: at most so many, fewer where predictions are equal; each gets at least 2 rows.
        replicates, confidence, seed: same seed, same interval; none with ``replicates=0``.

    Source: Xu & Yadlowsky, AISTATS 2022 (there one row is left out at a time).

    >>> uplift_calibration_error([0, 0, 1, 1], [1, 1, 2, 2], bins=2, replicates=0).estimate
    1.0
    """
    t = numbers("predicted", predicted)
    rows = len(t)
    d, w = numbers("effect", effect, (rows,)) - t, weights(weight, rows)
    if not 1 <= bins <= rows // 2:
        raise DataError(f"metrics: bins={bins} of {rows} rows; use 1 to {rows // 2}.")
    order = np.lexsort((w, d, t))  # so that replicates don't depend on the rows' order
    t, d, w = t[order], d[order], w[order]
    starts = np.unique(np.searchsorted(t, t[np.arange(bins) * rows // bins]))
    starts = starts[np.diff(starts, append=rows) >= 2]  # a bin of one row joins its neighbour
    starts[0] = 0

    def error(drawn: Array) -> Array:
        mass, part = np.add.reduceat(drawn, starts, axis=1), drawn * d
        pairs = mass**2 - np.add.reduceat(drawn**2, starts, axis=1)
        found = np.add.reduceat(part, starts, axis=1) ** 2
        found -= np.add.reduceat(part**2, starts, axis=1)
        known = pairs > 1e-12 * mass**2  # a bin with one row left has no pairs
        share = np.where(known, mass, 0.0)
        with np.errstate(invalid="ignore"):
            means = np.divide(found, pairs, out=np.zeros_like(found), where=known)
            result: Array = (share * means).sum(axis=1) / share.sum(axis=1)
        return result

    estimate = float(error(w[None])[0])
    if replicates == 0:
        return Interval(estimate, np.nan, np.nan, confidence)
    draws = bootstrap_draws(error, w, replicates=replicates, seed=seed)
    return percentile_interval(estimate, draws, confidence)


@dataclass(frozen=True)
class IsotonicUplift:
    """A rising map from predicted to calibrated uplift.

    On the rows that it was fit on the weighted mean is that of the pseudo-effects. Between their
    predictions it is linear, beyond them constant. The order of units stays, up to ties.

    Attributes:
        predicted: where the map bends, rising [M].
        calibrated: its values there, never falling [M].

    Source: van der Laan, Ulloa-Perez, Carone & Luedtke, ICML 2023.
    """

    predicted: Array
    calibrated: Array

    @classmethod
    def fit(
        cls, predicted: ArrayLike, effect: ArrayLike, *, weight: ArrayLike | None = None
    ) -> IsotonicUplift:
        """From predictions and pseudo-effects [N] of rows that the model never saw."""
        from sklearn.isotonic import isotonic_regression  # slow to import: only who fits pays it

        t = numbers("predicted", predicted)
        psi, w = numbers("effect", effect, (len(t),)), weights(weight, len(t))
        t, psi, w = t[w > 0], psi[w > 0], w[w > 0]
        points, place = np.unique(t, return_inverse=True)
        mass = np.bincount(place, w)
        values = isotonic_regression(np.bincount(place, w * psi) / mass, sample_weight=mass)
        bends = np.ones(len(points), dtype=bool)  # within a step only the ends matter
        bends[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
        return cls(points[bends], np.asarray(values[bends], dtype=np.float64))

    def apply(self, predicted: ArrayLike) -> Array:
        """Calibrated uplift of predictions [N]."""
        return np.interp(numbers("predicted", predicted), self.predicted, self.calibrated)
