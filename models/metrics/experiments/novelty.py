"""Novelty: does an effect last, or does it fade as people get used to the treatment?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from campaigns.errors import DataError
from models.metrics.checks import Array, Index, Mask, arm_indices, inverse_propensities, numbers
from models.metrics.intervals import Interval, normal_interval


@dataclass(frozen=True)
class EffectOverTime:
    """The effect in each period and its trend.

    Attributes:
        periods: those in which both arms have at least two rows [P].
        effects: mean treated minus mean control, one interval a period [P].
        slope: change of the effect from one period to the next.
        p_value: of no trend, two-sided.
        left_out: periods with too few rows.
    """

    periods: Array
    effects: list[Interval]
    slope: Interval
    p_value: float
    left_out: Array

    @property
    def summary(self) -> str:
        """The finding in a sentence (at level 0.05)."""
        if not self.p_value < 0.05:
            return (
                f"no trend of the effect over {len(self.periods)} periods (p = {self.p_value:.2g})"
            )
        centre = float(np.mean([effect.estimate for effect in self.effects]))
        turn = "fades" if centre * self.slope.estimate < 0 else "grows"
        return f"the effect {turn}: {self.slope.estimate:+.3g} a period (p = {self.p_value:.2g})"


def effect_over_time(
    y: ArrayLike,
    treatment: ArrayLike,
    period: ArrayLike,
    *,
    unit: ArrayLike | None = None,
    propensity: ArrayLike | None = None,
    confidence: float = 0.95,
) -> EffectOverTime:
    """The effect period by period, and the line through it.

    e_k is the difference of the inverse-propensity weighted means in period k, and psi its contributions
    (w (y - mean of the arm), scaled by each arm's mass). The slope is that of least squares with weights
    1 / Var(e_k); its variance takes the contributions of one unit over all periods together.

    By days since a unit's first exposure a trend is novelty (or learning); by calendar days it can also
    be the week. Units that stay away drop out of late periods, in each arm in its own way: an outcome of
    all who were ever exposed, 0 for those who stay away, is safe from that.

    Args:
        y: outcome [N].
        treatment: 1 treated, 0 control [N]; a unit keeps its arm.
        period: a number, such as days since the first exposure [N].
        unit: whose row it is [N]; None: every row is another's.
        propensity: of the arm that was given [N]; None: the same for all rows of an arm.
        confidence: of the intervals, in (0, 1).

    Raises:
        DataError: shapes differ, something isn't finite, or fewer than two periods have both arms.

    Source: Hohnhold, O'Brien & Tang, "Focusing on the long-term: it's good for users and business", KDD
    2015 (effects by exposure); Liang & Zeger 1986 (several rows a unit).
    """
    outcome = numbers("y", y)
    rows = len(outcome)
    treated = arm_indices("treatment", treatment, rows, arms=2) == 1
    when = numbers("period", period, (rows,))
    inverse = inverse_propensities(propensity, rows)
    weight = np.ones(rows) if inverse is None else inverse
    whose = np.arange(rows) if unit is None else _codes(unit, rows)

    known, code = np.unique(when, return_inverse=True)
    heads = [np.bincount(code[group], minlength=len(known)) for group in (treated, ~treated)]
    full = np.minimum(*heads) >= 2
    if full.sum() < 2:
        raise DataError(
            f"metrics: {int(full.sum())} of {len(known)} periods have two treated and two control"
            " rows; a trend needs at least two such periods."
        )
    kept = full[code]
    effect, psi = _effects(
        outcome[kept],
        treated[kept],
        weight[kept],
        (np.cumsum(full) - 1)[code[kept]],
        int(full.sum()),
    )
    covariance = _clustered(psi, (np.cumsum(full) - 1)[code[kept]], whose[kept], len(effect))
    variance = np.diag(covariance)
    # Periods without any spread would have all the weight: then all weigh the same.
    precision = 1 / variance if (variance > 0).all() else np.ones(len(variance))
    time = known[full] - np.average(known[full], weights=precision)
    line = precision * time / (precision @ time**2)
    slope, error = float(line @ effect), max(float(line @ covariance @ line), 0.0) ** 0.5
    return EffectOverTime(
        periods=known[full],
        effects=[
            normal_interval(float(e), float(np.sqrt(v)), confidence)
            for e, v in zip(effect, variance)
        ],
        slope=normal_interval(slope, error, confidence),
        p_value=float(2 * ndtr(-abs(slope) / error)) if error > 0 else float(slope == 0),
        left_out=known[~full],
    )


def _effects(
    y: Array, treated: Mask, weight: Array, code: Index, periods: int
) -> tuple[Array, Array]:
    """Effects [P], and each row's contribution to its period's error [N]."""
    effect, psi = np.zeros(periods), np.zeros(len(y))
    for sign, group in ((1.0, treated), (-1.0, ~treated)):
        mass = np.bincount(code[group], weights=weight[group], minlength=periods)
        total = np.bincount(code[group], weights=(weight * y)[group], minlength=periods)
        count = np.bincount(code[group], minlength=periods)
        mean = total / mass
        effect += sign * mean
        scale = np.sqrt(count / (count - 1)) / mass
        psi[group] = sign * (weight * (y - mean[code]) * scale[code])[group]
    return effect, psi


def _clustered(psi: Array, code: Index, unit: Index, periods: int) -> Array:
    """Covariance of the effects [P, P]: contributions are summed within units, then squared."""
    from scipy.sparse import coo_array

    _, whose = np.unique(unit, return_inverse=True)
    by_unit = coo_array((psi, (whose, code)), shape=(int(whose.max()) + 1, periods)).tocsr()
    return (by_unit.T @ by_unit).toarray()


def _codes(unit: ArrayLike, rows: int) -> Index:
    given = np.asarray(unit)
    if given.shape != (rows,):
        raise DataError(f"metrics: unit has shape {given.shape}; it must be [{rows}].")
    return np.unique(given, return_inverse=True)[1].astype(np.int64)
