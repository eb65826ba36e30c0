"""What other libraries call Qini, AUUC, uplift@k and AUTOC, by the library's name.

Each is that library's own number, with its default settings, so that a team can compare with its past.
They differ in what the curve counts, over how many points it is summed and by what it is divided:

* ``sklift`` (scikit-uplift 0.5.1): areas over random by those of the best order in hindsight.
* ``causalml`` (0.18): curves over |their last height|, averaged over the n + 1 rows from 0 to n; points
  before both groups have been seen are interpolated from 0. ``rate_score`` sums a midpoint rule whose
  weights add up to 1, so its AUTOC is not the integral.
* ``upliftml`` (0.0.2): the uplift curve at the ends of 30 buckets of nearly equal size.
* ``econml`` (0.17, ``DRTester``): doubly robust effects of the rows at or above 50 percentiles, from the
  5th to the 95th, of the scores that the model gave to the rows it was trained on.

Where scores are equal those libraries (but scikit-uplift's curves) depend on the order of the rows; here
a curve is linear inside a block of equal scores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError, choices
from models.metrics.checks import Array, numbers
from models.metrics.points import Points, Stretch, ratio
from models.metrics.registry import get_metric
from models.metrics.trial import check_trial
from models.metrics.uplift import auuc_core, qini_core
from models.metrics.uplift_calibration import pseudo_effects

CONVENTIONS = ("updraft", "sklift", "causalml", "upliftml", "econml")
_BUCKETS = 30  # upliftml's default
_PERCENTILES = np.linspace(5, 95, 50)  # econml's default
_FLOOR = 0.01  # econml clips propensities there


def in_convention(
    convention: str,
    metric: str,
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    q_hat: ArrayLike | None = None,
    train_score: ArrayLike | None = None,
) -> float:
    """A metric of one score as the named library computes it.

    Args:
        convention: one of ``CONVENTIONS``.
        metric: "qini" and "auuc" everywhere but econml ("qini", "autoc"); "lift@30" and the like with
            sklift (also "lift@30_by_group") and causalml; "qini_positive" with sklift
            (``negative_effect=False``); "autoc" and "rate_qini" with causalml; with "updraft" every
            name that :func:`models.metrics.get_metric` takes.
        y_true: outcomes [N]; scikit-uplift's areas of AUUC need 0 and 1.
        score, treatment: scores and arms [N], 1 treated, 0 control.
        propensity: probability of the arm that was given [N]. "updraft" and "econml" use it (the
            latter needs it); the others have no such thing and refuse it.
        q_hat: with "econml", predicted outcomes of control and treated [N, 2]; None for zeros.
        train_score: with "econml", scores of the training rows [any length]; None for ``score``.

    Raises:
        DataError: no such convention, or no such metric in it; the message lists those that exist.

    >>> y, score, treatment = [1, 0, 1, 0, 0, 1], [6, 5, 4, 3, 2, 1], [1, 0, 1, 0, 1, 0]
    >>> round(in_convention("sklift", "qini", y, score, treatment), 3)
    0.846
    """
    if convention not in CONVENTIONS:
        raise DataError(
            f"metrics: there is no convention '{convention}'; use {choices(CONVENTIONS)}."
        )
    if convention == "updraft":
        return get_metric(metric)(y_true, score, treatment, propensity=propensity)
    if convention == "econml":
        return _econml(metric, y_true, score, treatment, propensity, q_hat, train_score)
    if propensity is not None or q_hat is not None or train_score is not None:
        raise DataError(
            f"metrics: {convention} knows no propensity, q_hat or train_score; leave them out, or"
            " use 'updraft' or 'econml'."
        )
    points = check_trial(y_true, score, treatment).points()
    found = re.fullmatch(r"lift@(\d{1,2}(?:\.\d+)?)(_by_group)?", metric)
    if found and (core := _LIFTS.get((convention, found[2] is not None))):
        return core(points, float(found[1]) / 100)
    if metric not in _CORES[convention]:
        raise _unknown(convention, metric, [*_CORES[convention]])
    return _CORES[convention][metric](points)


def _sklift_lift(points: Points, h: float) -> float:
    n_t, n_c, y_t, y_c = points.at("units", np.floor(points.total[:, 0] * h))
    return float((ratio(y_t, n_t, np.nan) - ratio(y_c, n_c, np.nan))[0])


def _sklift_lift_by_group(points: Points, h: float) -> float:
    n_t, _, y_t, _ = points.at("n_t", np.floor(points.end.n_t[:, 0] * h))
    _, n_c, _, y_c = points.at("n_c", np.floor(points.end.n_c[:, 0] * h))
    return float((ratio(y_t, n_t, np.nan) - ratio(y_c, n_c, np.nan))[0])


def _causalml_auuc(points: Points) -> float:
    curve = points.whole
    gain = _causalml_lift(curve) * curve.units[0]
    return _mean_of_rows(curve, gain) / abs(gain[-1]) if gain[-1] else float("nan")


def _causalml_qini(points: Points) -> float:
    curve = points.whole
    height = _filled(curve, curve.extra[0], curve.n_c[0] > 0)
    over = _mean_of_rows(curve, height) - height[-1] / 2
    return over / abs(height[-1]) if height[-1] else float("nan")


def _causalml_cumlift(points: Points, h: float) -> float:
    """``get_cumlift(...)`` at row floor(h n)."""
    curve = points.whole
    row = np.floor(points.total[0, 0] * h)
    return float(np.interp(row, curve.units[0], _causalml_lift(curve)))


def _causalml_rate(points: Points, power: int) -> float:
    curve = points.whole
    both = (curve.n_t[0] > 0) & (curve.n_c[0] > 0)
    toc = np.where(both, curve.lift[0] - curve.lift[0, -1], 0.0)
    rows = np.arange(len(points.trial.y) + 1.0)
    height = np.interp(rows, curve.units[0], toc)
    middle = (rows[:-1] + rows[1:]) / 2
    return float(np.average((height[:-1] + height[1:]) / 2, weights=middle**power))


def _causalml_lift(curve: Stretch) -> Array:
    return _filled(curve, curve.lift[0], (curve.n_t[0] > 0) & (curve.n_c[0] > 0))


def _upliftml_auuc(points: Points) -> float:
    curve, rows = points.whole, len(points.trial.y)
    # Spark's buckets hold the scores from one quantile, the ceil(p n)-th from below, to the next.
    below = np.ceil(np.arange(1, _BUCKETS) / _BUCKETS * rows) - 1
    ends = np.unique([0, *(rows - below), rows])
    units = curve.units[0]
    at = np.stack([np.interp(ends, units, column[0]) for column in curve.sums[:4]])
    gain = ends / rows * (ratio(at[2], at[0]) - ratio(at[3], at[1]))
    return float(np.trapezoid(gain, ends / rows))


def _upliftml_qini(points: Points) -> float:
    return _upliftml_auuc(points) - float(points.end.lift[0, 0]) / 2


def _econml(
    metric: str,
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    propensity: ArrayLike | None,
    q_hat: ArrayLike | None,
    train_score: ArrayLike | None,
) -> float:
    if metric not in ("qini", "autoc"):
        raise _unknown("econml", metric, ["qini", "autoc"])
    trial = check_trial(y_true, score, treatment, propensity=propensity)
    if trial.inverse is None:
        raise DataError("metrics: propensity is missing; econml's numbers can't do without.")
    rows = len(trial.y)
    predicted = np.zeros((rows, 2)) if q_hat is None else numbers("q_hat", q_hat, (rows, 2))
    chance = np.maximum(1 / trial.inverse, _FLOOR)
    effect = pseudo_effects(trial.y, trial.treated.astype(int), chance, q_hat=predicted)
    known = trial.score if train_score is None else numbers("train_score", train_score)

    ranked = trial.score[trial.ranked.order]  # descending
    above = rows - np.searchsorted(ranked[::-1], np.percentile(known, _PERCENTILES), side="left")
    running = np.append(0.0, np.cumsum(effect[trial.ranked.order]))
    toc = ratio(running[above], above.astype(np.float64), np.nan) - effect.mean()
    height = toc * above / rows if metric == "qini" else toc
    return float(height[:-1] @ np.diff(_PERCENTILES) / 100)


def _filled(curve: Stretch, values: Array, known: Array) -> Array:
    """``values`` [M + 1] with 0 first, linear between known ones."""
    known[0] = True
    units = curve.units[0]
    return np.interp(units, units[known], np.where(np.arange(len(units)) == 0, 0.0, values)[known])


def _mean_of_rows(curve: Stretch, values: Array) -> float:
    """Mean of a curve [M + 1] over the rows 0, 1, ..., n."""
    units = curve.units[0]
    return float(np.interp(np.arange(units[-1] + 1), units, values).mean())


def _unknown(convention: str, metric: str, known: list[str]) -> DataError:
    lifts = [" or 'lift@30'"] if (convention, False) in _LIFTS else []
    return DataError(
        f"metrics: the convention '{convention}' has no '{metric}'; use {choices(known)}"
        f"{''.join(lifts)}."
    )


_CORES: Mapping[str, Mapping[str, Callable[[Points], float]]] = {
    "sklift": {
        "qini": lambda points: float(qini_core(points, "perfect")[0]),
        "qini_positive": lambda points: float(qini_core(points, "perfect", False)[0]),
        "auuc": lambda points: float(auuc_core(points, "perfect")[0]),
    },
    "causalml": {
        "qini": _causalml_qini,
        "auuc": _causalml_auuc,
        "autoc": lambda points: _causalml_rate(points, -1),
        "rate_qini": lambda points: _causalml_rate(points, 1),
    },
    "upliftml": {"qini": _upliftml_qini, "auuc": _upliftml_auuc},
}
_LIFTS: Mapping[tuple[str, bool], Callable[[Points, float], float]] = {
    ("sklift", False): _sklift_lift,
    ("sklift", True): _sklift_lift_by_group,
    ("causalml", False): _causalml_cumlift,
}
