"""Intervals of any ranking metric, and of the difference of two scores on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError, choices
from models.metrics.checks import Array, Counts, one_of
from models.metrics.influence import standard_error
from models.metrics.intervals import (
    Interval,
    bootstrap_draws,
    normal_interval,
    percentile_interval,
    poisson_counts,
)
from models.metrics.registry import METRICS, Metric, get_metric
from models.metrics.trial import Trial, check_trial
from models.metrics.uplift import Core

Method = Literal["bootstrap", "influence"]


def metric_interval(
    metric: str,
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    cost: ArrayLike | None = None,
    method: Method = "bootstrap",
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A metric with its interval.

    Args:
        metric: a name for :func:`models.metrics.get_metric`.
        y_true, score, treatment, propensity, weight, cost: as in ``auuc`` and ``aucc``.
        method: "bootstrap" (percentiles), or "influence": estimate -+ z standard errors of the rows'
            influence, in the time of one replicate; known for ATE, AUUC, Qini, LIFT and RATE.
        replicates, seed: of the bootstrap; same seed, same interval.
        confidence: of the interval.
    """
    found = _metric(metric, method)
    core = found.core
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight, cost=cost)
    if found.influence is not None and method == "influence":
        error = standard_error(trial, found.influence(trial))
        return normal_interval(float(core(trial.points())[0]), error, confidence)
    return trial_intervals(trial, [core], replicates=replicates, confidence=confidence, seed=seed)[
        0
    ]


def metric_intervals(
    metrics: Sequence[str],
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
) -> dict[str, Interval]:
    """Several metrics of one score with bootstrap intervals: one sort, and the same replicates.

    The intervals are those of :func:`metric_interval`; arguments as there.
    """
    wanted = [get_metric(name) for name in metrics]
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight, cost=cost)
    found = trial_intervals(
        trial, [metric.core for metric in wanted],
        replicates=replicates, confidence=confidence, seed=seed,
    )  # fmt: skip
    return {metric.name: interval for metric, interval in zip(wanted, found)}


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
    method: Method = "bootstrap",
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric of ``score`` minus that of ``other`` [N], paired row by row.

    Both see the same replicates, or the difference of the rows' influences is taken. Far narrower than two separate intervals, since most of the noise is the outcomes'.
    Other arguments as in :func:`metric_interval`.
    """
    found = _metric(metric, method)
    core = found.core
    one = check_trial(y_true, score, treatment, propensity=propensity, weight=weight, cost=cost)
    two = check_trial(y_true, other, treatment, propensity=propensity, weight=weight, cost=cost)

    def difference(weights: Array | Counts) -> Array:
        return core(one.points(weights)) - core(two.points(weights))

    if found.influence is not None and method == "influence":
        error = standard_error(one, found.influence(one) - found.influence(two))
        return normal_interval(float(difference(one.weight[None])[0]), error, confidence)
    draws = _draws(difference, one.weight, replicates, seed)
    return percentile_interval(float(difference(one.weight[None])[0]), draws, confidence)


def trial_intervals(
    trial: Trial, cores: list[Core], *, replicates: int, confidence: float, seed: int
) -> list[Interval]:
    """Intervals of several metrics of one ranking, from the same replicates and running sums.

    With ``replicates=0`` estimates alone, with nan bounds.
    """

    def values(weights: Array | Counts) -> Array:
        points = trial.points(weights)
        return np.stack([core(points) for core in cores], axis=1)

    estimates = values(trial.weight[None])[0]
    if replicates == 0:
        return [Interval(float(value), np.nan, np.nan, confidence) for value in estimates]
    draws = _draws(values, trial.weight, replicates, seed)
    return [
        percentile_interval(float(value), draws[:, column], confidence)
        for column, value in enumerate(estimates)
    ]


def _draws(
    statistic: Callable[[Array | Counts], Array], weight: Array, replicates: int, seed: int
) -> Array:
    """As ``bootstrap_draws``; rows that weigh 1 hand on the counts themselves, a byte each."""
    if (weight != 1).any():
        return bootstrap_draws(statistic, weight, replicates=replicates, seed=seed)
    return np.concatenate([statistic(c) for c in poisson_counts(len(weight), replicates, seed)])


def _metric(name: str, method: Method) -> Metric:
    """The metric, unless its influence is asked for and isn't known."""
    one_of("method", method, ("bootstrap", "influence"))
    metric = get_metric(name)
    if method == "influence" and metric.influence is None:
        known = [each.name for each in METRICS.values() if each.influence is not None]
        raise DataError(
            f"metrics: the influence of rows on '{name}' isn't known; use {choices(known)}, LIFT of"
            " all units such as 'lift@30', or method='bootstrap'."
        )
    return metric
