"""Bootstrap intervals of any ranking metric, and of the difference of two scores on the same rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checks import Array
from models.metrics.intervals import Interval, bootstrap_draws, percentile_interval
from models.metrics.registry import get_metric
from models.metrics.trial import Trial, check_trial
from models.metrics.uplift import Core


def metric_interval(
    metric: str,
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    cost: ArrayLike | None = None,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A metric with its bootstrap interval.

    Args:
        metric: a name for :func:`models.metrics.get_metric`.
        y_true, score, treatment, propensity, weight, cost: as in ``auuc`` and ``aucc``.
        replicates, confidence, seed: same seed, same interval.
    """
    core = get_metric(metric).core
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight, cost=cost)
    return trial_intervals(trial, [core], replicates=replicates, confidence=confidence, seed=seed)[
        0
    ]


def metric_difference(
    metric: str,
    y_true: ArrayLike,
    score: ArrayLike,
    other: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    cost: ArrayLike | None = None,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric of ``score`` minus that of ``other`` [N], paired: both see the same replicates.

    Far narrower than two separate intervals, since most of the noise is the outcomes'.
    Other arguments as in :func:`metric_interval`.
    """
    core = get_metric(metric).core
    one = check_trial(y_true, score, treatment, propensity=propensity, weight=weight, cost=cost)
    two = check_trial(y_true, other, treatment, propensity=propensity, weight=weight, cost=cost)

    def difference(weights: Array) -> Array:
        return core(one.points(weights)) - core(two.points(weights))

    draws = bootstrap_draws(difference, one.weight, replicates=replicates, seed=seed)
    return percentile_interval(float(difference(one.weight[None])[0]), draws, confidence)


def trial_intervals(
    trial: Trial, cores: list[Core], *, replicates: int, confidence: float, seed: int
) -> list[Interval]:
    """Intervals of several metrics of one ranking, from the same replicates and running sums.

    With ``replicates=0`` estimates alone, with nan bounds.
    """

    def values(weights: Array) -> Array:
        points = trial.points(weights)
        return np.stack([core(points) for core in cores], axis=1)

    estimates = values(trial.weight[None])[0]
    if replicates == 0:
        return [Interval(float(value), np.nan, np.nan, confidence) for value in estimates]
    draws = bootstrap_draws(values, trial.weight, replicates=replicates, seed=seed)
    return [
        percentile_interval(float(value), draws[:, column], confidence)
        for column, value in enumerate(estimates)
    ]
