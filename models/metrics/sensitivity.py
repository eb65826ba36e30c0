"""How strong a confounder that nobody logged would have to be to change a conclusion.

Two answers, for an arm against control:

* The marginal sensitivity model (Tan 2006). With e_i the probability of the given arm that the log
  states and e_i* the one given also the unit's potential outcome, the odds e* / (1 - e*) are within
  a factor Lambda of the odds e / (1 - e). So the true inverse propensity is 1 + l_i (1 / e_i - 1)
  with l_i anywhere in [1 / Lambda, Lambda]. The mean of an arm is bounded by the extremes of

      sum_i w_i (1 + l_i (1 / e_i - 1)) y_i  /  sum_i w_i (1 + l_i (1 / e_i - 1))

  (Zhao, Small & Bhattacharya, "Sensitivity analysis for inverse probability weighting estimators
  via the percentile bootstrap", JRSS B 2019). At the highest, rows above some threshold
  of y have l = Lambda and the others 1 / Lambda: one sort and a running sum find it exactly.
* The E-value of a risk ratio (VanderWeele & Ding 2017), for outcomes that are 0 or 1.

The bounds are exact for these weights. They are wider than the sharpest possible ones, which also
use that inverse propensities average out within each x (Dorn & Guo, "Sharp sensitivity analysis for
inverse propensity weighting via quantile balancing", JASA 2023): a conclusion that holds here holds
there. Where the papers are silent we chose: with several arms each is compared with control by the
propensity of the arm that was given, the odds being those of getting it against any other.
"""

from __future__ import annotations

from collections.abc import Callable
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

_MOST = 65536.0  # the largest odds ratio that is tried
_CLOSE = 1.0001  # breakdown values are right to this factor


@dataclass(frozen=True)
class EffectBounds:
    """What an effect could be under hidden confounding of a given strength.

    Attributes:
        odds_ratio: Lambda, at least 1.
        treated, control: lowest and highest mean outcome of the arm and of control.
        effect: lowest and highest effect.
        interval: the usual estimate (Lambda = 1), and limits that hold the effect with this
            confidence whatever confounder of this strength there is; nan without replicates.
    """

    odds_ratio: float
    treated: tuple[float, float]
    control: tuple[float, float]
    effect: tuple[float, float]
    interval: Interval


@dataclass(frozen=True)
class EValue:
    """Least risk ratio of a confounder with both arm and outcome that explains a risk ratio away.

    Attributes:
        risk_ratio: with its interval (its confidence is nan where limits were given as numbers).
        estimate: E-value of the risk ratio, at least 1.
        limit: E-value of the interval's limit that is nearer to 1; 1 where the interval includes
            1, nan where there is no interval.
    """

    risk_ratio: Interval
    estimate: float
    limit: float


@dataclass(frozen=True)
class Sensitivity:
    """How much hidden confounding it takes to change the conclusion about an arm.

    Attributes:
        arm: against control.
        effect: the usual estimate with its interval, right if there is no hidden confounding.
        breakdown: least Lambda at which the effect's bounds include 0; inf above 65,536.
        breakdown_interval: the same of the interval, 1 where it includes 0 without any
            confounding, nan where there is none.
        e_value: where outcomes are 0 or 1 and neither arm's mean is 0, else None.
    """

    arm: int
    effect: Interval
    breakdown: float
    breakdown_interval: float
    e_value: EValue | None

    @property
    def summary(self) -> str:
        """The finding in a sentence."""
        head = f"Arm {self.arm} against control: {self.effect}"
        if self.breakdown == 1 or self.breakdown_interval == 1:
            return f"{head} includes 0 without any hidden confounding."
        if np.isinf(self.breakdown):
            said = f"no hidden confounder up to an odds ratio of {_MOST:,.0f} explains it away"
        else:
            said = f"a hidden confounder could explain it away from an odds ratio of {self.breakdown:.2f}"
        if np.isfinite(self.breakdown_interval):
            said += f", and make it uncertain from {self.breakdown_interval:.2f}"
        if self.e_value is not None:
            said += f" (E-value {self.e_value.estimate:.2f})"
        return f"{head}; {said}."


def effect_bounds(
    outcome: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    *,
    odds_ratio: float,
    treated: int = 1,
    control: int = 0,
    weight: ArrayLike | None = None,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> EffectBounds:
    """Bounds on an arm's average effect if hidden confounding moves odds by up to ``odds_ratio``.

    The interval runs from the lower percentile of the replicates' lower bounds to the upper
    percentile of their upper bounds. Propensities are taken as known: replicates don't fit them
    again.

    Args:
        outcome: observed outcome of the arm given [N].
        arm: arm given [N]; rows of arms other than ``treated`` and ``control`` don't count.
        propensity: probability of the arm that was given, in (0, 1] [N].
        odds_ratio: Lambda, at least 1. At 1 both bounds are the usual (Hajek) estimate.
        treated, control: the arms to compare.
        weight: row weights [N].
        replicates, confidence, seed: same seed, same interval; none with ``replicates=0``.

    Raises:
        DataError: shapes differ, a propensity is outside (0, 1], ``odds_ratio`` is under 1, or an
            arm has no rows.

    Source: Zhao, Small & Bhattacharya, JRSS B 2019 (bounds, interval); Tan, "A
    distributional approach for causal inference using propensity scores", JASA 2006 (the model).

    >>> outcome, arm = [0.0, 4.0, 0.0, 2.0], [1, 1, 0, 0]
    >>> found = effect_bounds(outcome, arm, [0.5] * 4, odds_ratio=3, replicates=0)
    >>> found.interval.estimate
    1.0
    >>> [round(bound, 6) for bound in found.effect]  # weights 1 + 3 and 1 + 1/3 of 4 and 0
    [-0.5, 2.5]
    """
    if not (np.isfinite(odds_ratio) and odds_ratio >= 1):
        raise DataError(f"metrics: odds_ratio={odds_ratio}; it must be finite and at least 1.")
    pair = _check_pair(outcome, arm, propensity, treated, control, weight)
    own = pair.weight[None]
    given, kept = pair.split(own)
    return EffectBounds(
        odds_ratio=float(odds_ratio),
        treated=_bounds(pair.treated, given, odds_ratio),
        control=_bounds(pair.control, kept, odds_ratio),
        effect=(float(pair.low(own, odds_ratio)[0]), float(pair.high(own, odds_ratio)[0])),
        interval=_interval(pair, odds_ratio, replicates, confidence, seed),
    )


def sensitivity(
    outcome: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    *,
    treated: int = 1,
    control: int = 0,
    weight: ArrayLike | None = None,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Sensitivity:
    """How strong hidden confounding must be for an arm's effect, and its interval, to include 0.

    Both breakdown values are found by bisection, since bounds only widen as Lambda grows. They are
    right to 0.01%, from above. Arguments as in :func:`effect_bounds`.

    Source: as of :func:`effect_bounds` and :func:`e_value`.
    """
    pair = _check_pair(outcome, arm, propensity, treated, control, weight)
    own = pair.weight[None]
    effect = _interval(pair, 1.0, replicates, confidence, seed)
    side = pair.low if effect.estimate > 0 else pair.high
    sign = 1.0 if effect.estimate > 0 else -1.0

    def beyond(odds_ratio: float) -> float:
        return sign * float(side(own, odds_ratio)[0])

    def surely_beyond(odds_ratio: float) -> float:
        draws = bootstrap_draws(
            lambda drawn: sign * side(drawn, odds_ratio),
            pair.weight,
            replicates=replicates,
            seed=seed,
        )
        return percentile_interval(sign * effect.estimate, draws, confidence).low

    return Sensitivity(
        arm=treated,
        effect=effect,
        breakdown=1.0 if effect.estimate == 0 else _breakdown(beyond),
        breakdown_interval=float("nan") if np.isnan(effect.low) else _breakdown(surely_beyond),
        e_value=_e_value_of(pair, replicates, confidence, seed),
    )


def e_value(risk_ratio: float, low: float | None = None, high: float | None = None) -> EValue:
    """E-value of a risk ratio and of its confidence limit: RR + sqrt(RR (RR - 1)), RR >= 1.

    Below 1 it is that of 1 / RR. The limit's is that of the limit nearer to 1, and 1 where the
    interval includes 1.

    Args:
        risk_ratio: above 0.
        low, high: its confidence limits, if known; low <= risk_ratio <= high.

    Source: VanderWeele & Ding, "Sensitivity analysis in observational research: introducing the
    E-value", Annals of Internal Medicine 2017.

    >>> found = e_value(3.9, 1.8, 8.7)
    >>> round(found.estimate, 2), round(found.limit, 2)
    (7.26, 3.0)
    """
    if (low is None) != (high is None):
        raise DataError("metrics: low and high go together; give both, or neither.")
    if low is None or high is None:
        return _e_value(Interval(float(risk_ratio), np.nan, np.nan, np.nan))
    if not 0 <= low <= risk_ratio <= high:
        raise DataError(
            f"metrics: risk_ratio={risk_ratio} with limits {low} and {high};"
            " it must lie between them, and they above 0."
        )
    return _e_value(Interval(float(risk_ratio), float(low), float(high), np.nan))


def _e_value(ratio: Interval) -> EValue:
    if not (np.isfinite(ratio.estimate) and ratio.estimate > 0):
        raise DataError(f"metrics: risk_ratio={ratio.estimate}; it must be finite and above 0.")
    limit = ratio.low if ratio.estimate >= 1 else ratio.high
    crossed = limit <= 1 if ratio.estimate >= 1 else limit >= 1
    return EValue(ratio, _explains(ratio.estimate), 1.0 if crossed else _explains(limit))


def _explains(ratio: float) -> float:
    away = max(ratio, 1 / ratio)
    return float(away + np.sqrt(away * (away - 1)))


@dataclass(frozen=True)
class _Arm:
    """Rows of one arm, lowest outcome first: outcomes and 1 / e - 1 [n]."""

    outcome: Array
    odds: Array

    def highest(self, weight: Array, odds_ratio: float) -> Array:
        """Highest mean over l in [1 / Lambda, Lambda], for weights [r, n] -> [r]."""
        return _highest(self.outcome[::-1], self.odds[::-1], weight[:, ::-1], odds_ratio)

    def lowest(self, weight: Array, odds_ratio: float) -> Array:
        """Lowest mean, as :meth:`highest`; at Lambda = 1 the very same number."""
        if odds_ratio == 1:
            return self.highest(weight, odds_ratio)
        return -_highest(-self.outcome, self.odds, weight, odds_ratio)


@dataclass(frozen=True)
class _Pair:
    """Checked rows of two arms, with their weights [N]: first the treated, then control."""

    treated: _Arm
    control: _Arm
    weight: Array

    def split(self, weight: Array) -> tuple[Array, Array]:
        rows = len(self.treated.outcome)
        return weight[:, :rows], weight[:, rows:]

    def low(self, weight: Array, odds_ratio: float) -> Array:
        """Lowest effect, for weights [r, N] -> [r]."""
        given, kept = self.split(weight)
        return self.treated.lowest(given, odds_ratio) - self.control.highest(kept, odds_ratio)

    def high(self, weight: Array, odds_ratio: float) -> Array:
        """Highest effect, for weights [r, N] -> [r]."""
        given, kept = self.split(weight)
        return self.treated.highest(given, odds_ratio) - self.control.lowest(kept, odds_ratio)


def _highest(outcome: Array, odds: Array, weight: Array, odds_ratio: float) -> Array:
    """Highest mean for outcomes that fall [n]: the best of all thresholds, by running sums."""
    least = 1 + odds / odds_ratio
    mass, total = (weight @ least)[:, None], (weight @ (least * outcome))[:, None]
    more = weight * (odds * (odds_ratio - 1 / odds_ratio))
    with np.errstate(invalid="ignore"):  # a replicate without rows of this arm is nan
        means = (total + np.cumsum(more * outcome, axis=1)) / (mass + np.cumsum(more, axis=1))
    best: Array = means.max(axis=1)
    return best


def _check_pair(
    outcome: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    treated: int,
    control: int,
    weight: ArrayLike | None,
) -> _Pair:
    y = numbers("outcome", outcome)
    arms = arm_indices("arm", arm, len(y))
    inverse = inverse_propensities(propensity, len(y))
    if inverse is None:
        raise DataError("metrics: propensity is missing; sensitivity is relative to it.")
    if treated == control:
        raise DataError(f"metrics: treated and control are both {treated}; name two arms.")
    w = weights(weight, len(y))
    both_groups(arms == treated, arms == control, w)
    # Sorted by all there is to a row, so that replicates don't depend on the rows' order.
    order = np.lexsort((w, inverse, y))
    first, second = order[arms[order] == treated], order[arms[order] == control]
    return _Pair(
        _Arm(y[first], inverse[first] - 1),
        _Arm(y[second], inverse[second] - 1),
        w[np.concatenate([first, second])],
    )


def _bounds(arm: _Arm, weight: Array, odds_ratio: float) -> tuple[float, float]:
    return float(arm.lowest(weight, odds_ratio)[0]), float(arm.highest(weight, odds_ratio)[0])


def _interval(
    pair: _Pair, odds_ratio: float, replicates: int, confidence: float, seed: int
) -> Interval:
    estimate = float(pair.low(pair.weight[None], 1.0)[0])
    if replicates == 0:
        return Interval(estimate, np.nan, np.nan, confidence)
    draws = bootstrap_draws(
        lambda drawn: np.stack([pair.low(drawn, odds_ratio), pair.high(drawn, odds_ratio)], axis=1),
        pair.weight,
        replicates=replicates,
        seed=seed,
    )
    low, high = (percentile_interval(estimate, draws[:, side], confidence) for side in (0, 1))
    return Interval(estimate, low.low, high.high, confidence)


def _breakdown(beyond: Callable[[float], float]) -> float:
    """Least Lambda at which a falling function is no longer above 0."""
    if not beyond(1.0) > 0:
        return 1.0
    low, high = 1.0, 2.0
    while beyond(high) > 0:
        if high >= _MOST:
            return float("inf")
        low, high = high, high * high
    while high / low > _CLOSE:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if beyond(middle) > 0 else (low, middle)
    return high


def _e_value_of(pair: _Pair, replicates: int, confidence: float, seed: int) -> EValue | None:
    seen = np.concatenate([pair.treated.outcome, pair.control.outcome])
    if not np.isin(seen, (0.0, 1.0)).all():
        return None

    def ratio(weight: Array) -> Array:
        given, kept = pair.split(weight)
        with np.errstate(divide="ignore", invalid="ignore"):
            return pair.treated.highest(given, 1.0) / pair.control.highest(kept, 1.0)

    estimate = float(ratio(pair.weight[None])[0])
    if not (np.isfinite(estimate) and estimate > 0):
        return None
    if replicates == 0:
        return _e_value(Interval(estimate, np.nan, np.nan, confidence))
    draws = bootstrap_draws(ratio, pair.weight, replicates=replicates, seed=seed)
    return _e_value(percentile_interval(estimate, draws, confidence))
