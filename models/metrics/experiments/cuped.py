"""CUPED: what was known before the trial explains part of the outcome, and narrows the interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from campaigns.errors import DataError
from models.metrics.checks import Array, Mask, arm_indices, inverse_propensities, numbers
from models.metrics.intervals import Interval, normal_interval


@dataclass(frozen=True)
class AdjustedEffect:
    """The effect of a treatment with and without adjustment.

    Attributes:
        interval: adjusted effect per row.
        unadjusted: difference of the means (inverse-propensity weighted).
        variance_reduction: share of the unadjusted estimate's variance that is gone; the trial is
            worth 1 / (1 - it) times its rows. nan where the outcome never varies, below 0 by chance
            where the covariates tell nothing.
    """

    interval: Interval
    unadjusted: Interval
    variance_reduction: float


def cuped_effect(
    y: ArrayLike,
    treatment: ArrayLike,
    covariates: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    confidence: float = 0.95,
) -> AdjustedEffect:
    """Mean treated minus mean control outcome, adjusted for covariates known before the trial.

    In each arm y is regressed on the covariates, centred at the mean of all rows, with weights 1 / p;
    the effect is the difference of the intercepts:

        psi_i = mu_1(x_i) - mu_0(x_i) + (1[a_i = 1] - 1[a_i = 0]) / p_i * (y_i - mu_{a_i}(x_i))

    One slope for both arms would be CUPED as Deng et al. wrote it; a slope an arm is never less precise
    in large trials (Lin 2013). Residuals are scaled up for the slopes that were fitted, and the interval
    is Student's with Welch's degrees of freedom, so that small trials get the wide one they deserve.

    Args:
        y: outcome [N].
        treatment: 1 treated, 0 control [N].
        covariates: [N] or [N, F], finite, and **known before the draw**: whatever the treatment can
            move biases the effect. The same outcome in the weeks before is the best of all.
        propensity: of the arm that was given [N]; None: the same for all rows of an arm.
        confidence: of the intervals, in (0, 1).

    Raises:
        DataError: shapes differ, something isn't finite, or an arm has fewer than F + 2 rows.

    Source: Deng, Xu, Kohavi & Walker, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data", WSDM 2013; Lin, "Agnostic notes on regression adjustments to
    experimental data", 2013.
    """
    outcome = numbers("y", y)
    rows = len(outcome)
    treated = arm_indices("treatment", treatment, rows, arms=2) == 1
    x = numbers("covariates", covariates, (rows,) if np.ndim(covariates) == 1 else (rows, None))
    x = x.reshape(rows, -1)
    heads = [int((~treated).sum()), int(treated.sum())]
    if min(heads) < x.shape[1] + 2:
        raise DataError(
            f"metrics: {heads[1]} treated and {heads[0]} control rows; with {x.shape[1]} covariates"
            f" each arm needs at least {x.shape[1] + 2}."
        )
    inverse = inverse_propensities(propensity, rows)
    weight = np.ones(rows) if inverse is None else inverse
    centred = x - x.mean(axis=0)
    spread = centred.std(axis=0)
    centred /= np.where(spread > 0, spread, 1.0)
    plain, plain_error = _effect(outcome, treated, centred[:, :0], weight, confidence)
    adjusted, error = _effect(outcome, treated, centred, weight, confidence)
    gone = 1 - (error / plain_error) ** 2 if plain_error > 0 else float("nan")
    return AdjustedEffect(adjusted, plain, gone)


def _effect(
    y: Array, treated: Mask, x: Array, weight: Array, confidence: float
) -> tuple[Interval, float]:
    """The effect and its standard error."""
    rows = len(y)
    design = np.column_stack([np.ones(rows), x])
    psi, variance, freedom = np.zeros(rows), [], []
    for sign, group in ((1.0, treated), (-1.0, ~treated)):
        root = np.sqrt(weight[group])
        slopes, _, rank, _ = np.linalg.lstsq(
            design[group] * root[:, None], y[group] * root, rcond=None
        )
        left = int(group.sum()) - int(rank)
        residual = (y[group] - design[group] @ slopes) * np.sqrt(group.sum() / left)
        scaled = weight[group] * rows / weight[group].sum()
        psi += sign * (design @ slopes)
        psi[group] += sign * scaled * residual
        variance.append(float((scaled * residual) @ (scaled * residual)) / rows**2)
        freedom.append(left)
    estimate = float(psi.mean())
    error = float(np.sqrt(((psi - estimate) ** 2).sum())) / rows
    return _student(estimate, error, variance, freedom, confidence), error


def _student(
    estimate: float, error: float, variance: list[float], freedom: list[int], confidence: float
) -> Interval:
    """estimate -+ t * error, the degrees of freedom by Welch and Satterthwaite."""
    known = sum(variance)
    if known == 0:
        return normal_interval(estimate, error, confidence)
    degrees = known**2 / sum(v**2 / f for v, f in zip(variance, freedom))
    wider = stats.t.ppf(0.5 + confidence / 2, degrees) / stats.norm.ppf(0.5 + confidence / 2)
    return normal_interval(estimate, error * float(wider), confidence)
