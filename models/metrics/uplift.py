"""How well a score ranks units by uplift: AUUC, Qini, LIFT@h, AUCC.

Each metric is one vectorized core ``Points -> [R]`` (R replicates of row weights), which the
bootstrap uses too, and one public function that checks its arguments. All are nan where they aren't
defined (for instance a normalized Qini of outcomes that are all 0) and never raise for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.checks import Array, one_of
from models.metrics.curves import area, gain, spend, to_one
from models.metrics.points import Points, Stretch, ratio
from models.metrics.trial import check_trial

Core = Callable[[Points], Array]
Normalize = Literal["perfect", "final"] | None


def ate(
    y_true: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """Average treatment effect: weighted mean outcome of the treated minus that of control.

    Arguments as in :func:`auuc`. The end of the uplift curve.
    """
    constant = np.zeros(np.shape(y_true))
    trial = check_trial(y_true, constant, treatment, propensity=propensity, weight=weight)
    return _single(ate_core(trial.points()))


def auuc(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    normalize: Normalize = None,
) -> float:
    """Area under the uplift curve.

    Args:
        y_true: outcomes [N].
        score: predicted uplift, or any ranking score, higher first [N].
        treatment: 1 treated, 0 control [N].
        propensity: probability of the arm that was *given*, in (0, 1] [N]; None for a trial with
            constant propensities.
        weight: row weights >= 0 [N]; a weight of 2 is the row twice.
        normalize: None: the area, per capita, in units of y (a random score has ATE / 2).
            "perfect": area over the random line, divided by that of the best order in hindsight
            (scikit-uplift's ``uplift_auc_score``; 0 random, 1 perfect; binary outcomes only).
            "final": the area over the curve's last height in absolute value (nearly causalml's
            ``auuc_score``; 0.5 random where the effect is positive).

    Source: Devriendt, Guns & Verbeke, "Learning to rank for uplift modeling", 2020.
    """
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight)
    return _single(auuc_core(trial.points(), normalize))


def qini(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    normalize: Normalize = None,
    negative_effect: bool = True,
) -> float:
    """Qini coefficient: area between the Qini curve and the random line (0 for a random score).

    Args:
        y_true, score, treatment, propensity, weight: as in :func:`auuc`.
        normalize: None: the area over phi in [0, 1], in outcomes gained among the treated, so it
            grows with the number of rows. "perfect": over the area of the best order in hindsight
            (scikit-uplift's ``qini_auc_score``). "final": over the curve's last height in absolute
            value (nearly causalml's ``qini_score``).
        negative_effect: with "perfect" only. True: the best order also puts those whom treatment
            harms last. False: the best curve climbs to its end and stays (binary outcomes only; nan
            where the effect isn't positive).

    Source: Radcliffe, "Using control groups to target on predicted lift", 2007.

    >>> y, score, treatment = [1, 0, 1, 0, 0, 1], [6, 5, 4, 3, 2, 1], [1, 0, 1, 0, 1, 0]
    >>> round(qini(y, score, treatment), 3)
    0.917
    >>> round(qini(y, score, treatment, normalize="perfect"), 3)
    0.846
    """
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight)
    return _single(qini_core(trial.points(), normalize, negative_effect))


def lift_at(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    h: float = 0.3,
    by_group: bool = False,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """LIFT@h: mean outcome of the treated minus that of control among the top ``h`` of scores.

    Where the cut falls inside a block of equal scores, the block counts in part: the sums one would
    get on average over all orders of its rows. Counts of rows are rounded down, as in
    scikit-uplift's ``uplift_at_k`` (whose result among ties depends on the order of the rows).

    Args:
        y_true, score, treatment, propensity, weight: as in :func:`auuc`.
        h: share of the units, in (0, 1]; 1 gives the ATE.
        by_group: take the top h of the treated and of control each, not of both together.

    Returns:
        The difference; nan where the top has no treated or no control units.
    """
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight)
    return _single(lift_core(trial.points(), h, by_group))


def aucc(
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    cost: ArrayLike | None = None,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """Area under the cost curve (0.5 for a random score; a better ranking has more).

    Args:
        y_true: value of each row [N].
        cost: observed cost of each row [N]; None for the same unit cost for everyone.
        score, treatment, propensity, weight: as in :func:`auuc`.

    Returns:
        The area; nan where the whole group's incremental cost or value isn't above 0.

    Source: Du, Lee & Ghaffarizadeh, "Improve User Retention with Causal Learning", 2019.
    """
    trial = check_trial(y_true, score, treatment, propensity=propensity, weight=weight, cost=cost)
    return _single(aucc_core(trial.points()))


def ate_core(points: Points) -> Array:
    """The uplift curve's end [R]."""
    return _defined(points, points.end.lift[:, 0])


def auuc_core(points: Points, normalize: Normalize = None) -> Array:
    """See :func:`auuc` [R]."""
    one_of("normalize", normalize, (None, "perfect", "final"))
    under, end = points.areas[0], points.end.lift[:, 0]
    if normalize is None:
        return _defined(points, under)
    if normalize == "final":
        return _defined(points, ratio(under, np.abs(end), np.nan))
    _need_binary(points, "the perfect uplift curve")
    room = _best_for_uplift(points) - end / 2
    return _defined(points, ratio(under - end / 2, room, np.nan))


def qini_core(points: Points, normalize: Normalize = None, negative_effect: bool = True) -> Array:
    """See :func:`qini` [R]."""
    one_of("normalize", normalize, (None, "perfect", "final"))
    end = points.end.extra[:, 0]
    over_random = points.areas[1] - end / 2
    if normalize is None:
        return _defined(points, over_random)
    if normalize == "final":
        return _defined(points, ratio(over_random, np.abs(end), np.nan))
    if negative_effect:
        room = _best_for_qini(points) - end / 2
    else:
        # The best curve reaches `end` extra outcomes after as many units, and stays there.
        _need_binary(points, "the perfect Qini curve without negative effects")
        units = points.total[:, 0]
        room = np.where(end > 0, end * (units - end) / (2 * units), 0.0)
    return _defined(points, ratio(over_random, room, np.nan))


def lift_core(points: Points, h: float = 0.3, by_group: bool = False) -> Array:
    """See :func:`lift_at` [R]."""
    if not 0 < h <= 1:
        raise DataError(f"metrics: h={h} isn't a share of the units; use one in (0, 1].")
    whole = points.trial.whole
    if by_group:
        whole = whole and points.trial.inverse is None
        n_t, _, y_t, _ = points.at("n_t", _cut(points.end.n_t[:, 0], h, whole))
        _, n_c, _, y_c = points.at("n_c", _cut(points.end.n_c[:, 0], h, whole))
    else:
        n_t, n_c, y_t, y_c = points.at("units", _cut(points.total[:, 0], h, whole))
    return ratio(y_t, n_t, np.nan) - ratio(y_c, n_c, np.nan)


def aucc_core(points: Points) -> Array:
    """See :func:`aucc` [R]."""
    return _defined(points, area(to_one(spend(points)), to_one(gain(points))))


def _best_for_qini(points: Points) -> Array:
    """Area of the best order in hindsight [R]: treated by y, control by -y."""
    if not (points.trial.binary and points.trial.complete):
        return points.trial.best_for_qini.points(points.weight).areas[1]
    idle = points.cells[True, False] + points.cells[False, False]
    return _blocks(points, points.cells[True, True], idle, points.cells[False, True]).areas[1]


def _best_for_uplift(points: Points) -> Array:
    """Area of scikit-uplift's best order of binary outcomes [R] (``perfect_uplift_curve``).

    Treated responders, then control non-responders, then the larger of the two other sets.
    """
    trial, cells = points.trial, points.cells
    responders = trial.weight[trial.control & (trial.y == 1)].sum()
    refusers = trial.weight[trial.treated & (trial.y == 0)].sum()
    others = [cells[False, True], cells[True, False]]
    if responders <= refusers:
        others.reverse()
    return _blocks(points, cells[True, True], cells[False, False], *others).areas[0]


def _blocks(points: Points, *blocks: Array) -> Stretch:
    """The curve of whole blocks of units, sums [5, R] each, in this order."""
    sums = np.cumsum(np.stack([np.zeros_like(blocks[0]), *blocks], axis=2), axis=2)
    return Stretch(sums, points.total)


def _cut(total: Array, h: float, whole: bool) -> Array:
    """How many units the top ``h`` of ``total`` are; at least one where units are rows."""
    if not whole:
        return h * total
    return np.maximum(np.floor(h * total + 1e-9), 1.0)  # 0.29 * 100 is 29, not 28


def _defined(points: Points, values: Array) -> Array:
    """nan for replicates that drew nobody of a group."""
    return np.where(points.defined, values, np.nan)


def _need_binary(points: Points, what: str) -> None:
    if not points.trial.binary:
        raise DataError(f"metrics: {what} needs outcomes of 0 and 1, and y_true has others.")


def _single(values: Array) -> float:
    return float(values[0])
