"""Uplift, Qini and cost curves: points only at distinct scores, so row order never matters.

At a point, N_T, Y_T (N_C, Y_C) are the inverse-propensity weighted count and outcome sum of the
treated (control) units with at least that score, and phi is the share of all units there.
A group without units yet has rate 0 (scikit-uplift's convention).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checks import Array
from models.metrics.points import Points, ratio
from models.metrics.trial import check_trial


class Curve(NamedTuple):
    """Points of a curve, the first at (0, 0): ``x`` [M + 1] and ``y`` [M + 1], M distinct scores."""

    x: Array
    y: Array


def uplift_curve(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Curve:
    """Uplift (gain) curve: x = phi, y = phi * (Y_T / N_T - Y_C / N_C), per capita.

    Args:
        y_true: outcomes [N].
        score: predicted uplift, or any ranking score, higher first [N].
        treatment: 1 treated, 0 control [N].
        propensity: probability of the arm that was *given*, in (0, 1] [N]; None for a trial with
            constant propensities.
        weight: row weights >= 0 [N]; a weight of 2 is the row twice.

    Source: Gutierrez & Gerardy, "Causal Inference and Uplift Modelling", 2017.
    """
    points = check_trial(y_true, score, treatment, propensity=propensity, weight=weight).points()
    return Curve(points.depth[0], gain(points)[0])


def qini_curve(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Curve:
    """Qini curve: x = phi, y = Y_T - Y_C * N_T / N_C, extra outcomes among the treated.

    Arguments as in :func:`uplift_curve`. Source: Radcliffe, "Using control groups to target on
    predicted lift", Direct Marketing Analytics Journal, 2007.
    """
    points = check_trial(y_true, score, treatment, propensity=propensity, weight=weight).points()
    return Curve(points.depth[0], points.whole.extra[0])


def cost_curve(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    cost: ArrayLike | None = None,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Curve:
    """Cost curve: x = incremental cost, y = incremental value, both scaled to end at 1.

    Both are gain curves along the ranking. ``cost`` [N] is the observed cost of each row; None
    stands for a unit cost that is the same for everyone, for which x = phi. All NaN where the
    whole group's incremental cost or value isn't above 0: there is nothing to take a share of.

    Other arguments as in :func:`uplift_curve`, with ``y_true`` the value. Source: Du, Lee &
    Ghaffarizadeh, "Improve User Retention with Causal Learning", 2019 (area under cost curve).
    """
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight, cost=cost)
    points = trial.points()
    return Curve(to_one(spend(points))[0], to_one(gain(points))[0])


def every_curve(points: Points) -> dict[str, Curve]:
    """The uplift, Qini and cost curve of the first replicate, from the same running sums."""
    value, cost = gain(points), spend(points)
    return {
        "uplift": Curve(points.depth[0], value[0]),
        "qini": Curve(points.depth[0], points.whole.extra[0]),
        "cost": Curve(to_one(cost)[0], to_one(value)[0]),
    }


def gain(points: Points, values: Array | None = None) -> Array:
    """phi * (rate of the treated - rate of control) [R, M + 1], of y or of other ``values`` [N]."""
    if values is None:
        return points.depth * points.whole.lift
    treated, control = points.sums(values)
    return points.depth * (ratio(treated, points.n_t) - ratio(control, points.n_c))


def spend(points: Points) -> Array:
    """Incremental cost per unit of the population along the ranking [R, M + 1]."""
    trial = points.trial
    if trial.cost is not None:
        return gain(points, trial.cost)
    if trial.unit_cost is not None:
        return points.totals(trial.unit_cost) / points.units[:, -1:]
    return points.depth


def to_one(curve: Array) -> Array:
    """A curve [R, M + 1] over its end; NaN where the end isn't above 0."""
    return ratio(curve, np.where(curve[:, -1:] > 0, curve[:, -1:], np.nan))


def area(x: Array, y: Array) -> Array:
    """Trapezoid area under each curve [R]."""
    return np.asarray(np.trapezoid(y, x, axis=1))
