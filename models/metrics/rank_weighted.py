"""Rank-weighted average treatment effects (RATE): what the order of the scores is worth.

With Gamma a row's unbiased, noisy effect and q the share of the units at or above a score:

    TOC(q)    = E[Gamma | among the top q] - E[Gamma]         (targeting operator characteristic)
    AUTOC     = integral of TOC(q) dq            = E[Gamma (-ln q - 1)]
    RATE Qini = integral of q TOC(q) dq          = E[Gamma (1/2 - q)]

All are 0 for a random score. AUTOC weighs the first units most, and has the more power where few units
respond; Qini weighs all alike. Source: Yadlowsky, Fleming, Shah, Brunskill & Wager, "Evaluating
treatment prioritization rules via rank-weighted average treatment effects", JASA 2025 (arXiv:2111.07966).

The paper sums over rows; we integrate, with E[Gamma] spread evenly inside a block of equal scores (its
mean over orders), so that a weight is a repetition. The two differ by O(log N / N).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checks import Array, Index, numbers, one_of, weights
from models.metrics.curves import Curve
from models.metrics.intervals import Interval, normal_interval
from models.metrics.points import Points, Stretch

Weighting = Literal["autoc", "qini"]


def toc_curve(score: ArrayLike, effect: ArrayLike, *, weight: ArrayLike | None = None) -> Curve:
    """TOC: x = the share q of units at or above a score, y = TOC(q); the first point repeats y.

    Args:
        score: predicted uplift, or any ranking score, higher first [N].
        effect: the rows' effects, of :func:`models.metrics.pseudo_effects` (inverse-propensity
            weighted, or doubly robust with ``q_hat``) [N].
        weight: row weights >= 0 [N].
    """
    order, blocks, mass = _blocks(score, effect, weight)
    depth, gained = _running(numbers("effect", effect)[order], mass, blocks)
    height = gained[1:] / depth[1:] - gained[-1]
    return Curve(depth, np.append(height[0], height))


def rate(
    score: ArrayLike,
    effect: ArrayLike,
    *,
    weighting: Weighting = "autoc",
    weight: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval:
    """RATE of a score by given effects, with its influence-function interval.

    Arguments as in :func:`toc_curve`; ``weighting``: "autoc" or "qini". For effects that are made of
    the trial's own outcomes, propensities and nothing else use the metrics "autoc" and "rate_qini".

    >>> rate([3, 2, 1], [2.0, 1.0, 0.0], weighting="qini").estimate.__round__(3)
    0.222
    """
    influence, estimate = _influence(score, effect, weighting, weight)
    heavy = weights(weight, len(influence))
    error = float(np.sqrt(((heavy * influence) ** 2).sum())) / float(heavy.sum())
    return normal_interval(estimate, error, confidence)


def rate_difference(
    score: ArrayLike,
    other: ArrayLike,
    effect: ArrayLike,
    *,
    weighting: Weighting = "autoc",
    weight: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval:
    """RATE of ``score`` minus that of ``other``, paired row by row; other arguments as in ``rate``."""
    one, first = _influence(score, effect, weighting, weight)
    two, second = _influence(other, effect, weighting, weight)
    heavy = weights(weight, len(one))
    error = float(np.sqrt(((heavy * (one - two)) ** 2).sum())) / float(heavy.sum())
    return normal_interval(first - second, error, confidence)


def rate_core(points: Points, weighting: Weighting = "autoc") -> Array:
    """RATE of a trial's own effects under each replicate of its weights [R].

    Gamma = U (1[treated] v / V_T - 1[control] v / V_C) (y - m): v the inverse-propensity weights, V
    their sums, U all units, m the mean of the two groups' means, which takes no side.
    """
    one_of("weighting", weighting, ("autoc", "qini"))
    end = points.end
    level = (end.outcomes[0] / _some(end.n_t) + end.outcomes[1] / _some(end.n_c)) / 2
    total = np.zeros(len(points.weight))
    for piece in points.stretches():
        gained = _gained(piece, end, level)
        if weighting == "qini":
            step = np.diff(piece.depth, axis=1)
            total += (step * (gained[:, 1:] + gained[:, :-1])).sum(axis=1) / 2
        else:
            total += _over_depth(piece.depth, gained).sum(axis=1)
    ate = end.lift[:, 0]
    return np.where(points.defined, total - (ate / 2 if weighting == "qini" else ate), np.nan)


def rank_weights(depth: Array, weighting: Weighting) -> Array:
    """omega: the mean of -ln q - 1 (autoc) or 1/2 - q (qini) between points of depth [M + 1]: [M]."""
    if weighting == "qini":
        return 0.5 - (depth[1:] + depth[:-1]) / 2
    power = np.where(depth > 0, depth * np.log(np.where(depth > 0, depth, 1.0)), 0.0)
    return -np.diff(power) / np.diff(depth)


def rank_correction(depth: Array, gained: Array, weighting: Weighting) -> Array:
    """What a unit adds to a RATE by moving those below it down a rank [M], not centred.

    The block's mean of the integral from q to 1 of omega'(u) tau(u) du, where tau du is a step of
    ``gained`` [M + 1], the mean effect of a unit times the share of units so far.
    """
    step, slope = np.diff(depth), np.diff(gained) / np.diff(depth)
    if weighting == "qini":
        below = gained[-1] - gained[1:]
        return -(below + slope * step / 2)
    low, high = depth[:-1], depth[1:]
    log = np.log(high / np.where(low > 0, low, high))
    below = np.append(np.cumsum((slope * log)[:0:-1])[::-1], 0.0)
    return -(below + slope * (1.0 - low * log / step))


def _influence(
    score: ArrayLike, effect: ArrayLike, weighting: Weighting, weight: ArrayLike | None
) -> tuple[Array, float]:
    """Each row's influence on a RATE of given effects [N], and the RATE."""
    one_of("weighting", weighting, ("autoc", "qini"))
    order, blocks, mass = _blocks(score, effect, weight)
    gamma = numbers("effect", effect)[order]
    depth, gained = _running(gamma, mass, blocks)
    heights = np.diff(np.append(0, blocks))
    omega = np.repeat(rank_weights(depth, weighting), heights)
    moved = np.repeat(rank_correction(depth, gained, weighting), heights)
    estimate = float(np.average(omega * gamma, weights=mass))
    influence = np.zeros(len(np.asarray(score)))
    influence[order] = omega * gamma - estimate + moved - np.average(moved, weights=mass)
    return influence, estimate


def _blocks(
    score: ArrayLike, effect: ArrayLike, weight: ArrayLike | None
) -> tuple[Index, Index, Array]:
    """Rows with weight by descending score, where each block of equal scores ends, their weights."""
    ranks = numbers("score", score)
    rows = len(ranks)
    numbers("effect", effect, (rows,))
    heavy = weights(weight, rows)
    order = np.argsort(ranks)[::-1]
    order = order[heavy[order] > 0]
    last = np.append(np.diff(ranks[order]) != 0, True)
    return order, np.flatnonzero(last) + 1, heavy[order]


def _running(gamma: Array, mass: Array, blocks: Index) -> tuple[Array, Array]:
    """Depth and mean effect so far times depth, at the blocks' ends [M + 1]."""
    units, effects = (np.append(0.0, np.cumsum(each)[blocks - 1]) for each in (mass, mass * gamma))
    return units / units[-1], effects / units[-1]


def _gained(piece: Stretch, end: Stretch, level: Array) -> Array:
    """Mean effect so far times depth: the sum of Gamma over all units [R, m + 1]."""
    treated = (piece.outcomes[0] - level * piece.n_t) / _some(end.n_t)
    control = (piece.outcomes[1] - level * piece.n_c) / _some(end.n_c)
    return np.asarray(treated - control)


def _over_depth(depth: Array, gained: Array) -> Array:
    """Integrals of gained(q) / q between points [R, m], ``gained`` being linear between them."""
    low, step, rise = depth[:, :-1], np.diff(depth, axis=1), np.diff(gained, axis=1)
    first = low == 0
    slope = np.divide(rise, step, out=np.zeros_like(rise), where=step > 0)
    log = np.log1p(step / np.where(first, 1.0, low))
    return np.asarray(rise + np.where(first, 0.0, (gained[:, :-1] - slope * low) * log))


def _some(count: Array) -> Array:
    """Counts to divide by: 1 where there is nobody."""
    return np.where(count > 0, count, 1.0)
