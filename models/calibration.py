"""Curves that turn a ranking net's scores into effects: what units of a score gained, in the log.

A ranking net says who comes first, not by how much. Here rows of randomized trials are cut into bins
of their score, an arm at a time, and the bin's effects are Hajek means (inverse-propensity weighted
means of the arm's rows less those of control's). The curves are then made to keep the ranking: the
cost effect c is positive, the ratio of value to cost increases with the score, and each outcome's
effect moves by as little (in squares) as makes the value come to ratio * c.

The ratio is an isotonic regression of the bins' ratios with weight c times the bin's mass, so a pool
of bins has the ratio of its sums (total value over total cost): bins whose cost effect is near 0
don't decide. Isotonic curves have flat pieces, on which a score would tell nobody apart; a slope of
``TILT`` of the curve's size keeps the scores' order there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.data import Batch, Shape

KNOTS = 22  # of a curve: the bins and both ends of the scores' range
ROWS_A_BIN = 200  # at least, of the arm and of control each
LEAST_COST = 0.05  # share of the mean cost effect that no bin's cost effect is below
TILT = 1e-3


@dataclass(frozen=True)
class Curves:
    """Effects of every arm by score, linear between knots, in the outcomes' training units.

    Attributes:
        knots: Scores, ascending, [A - 1, M].
        effects: Effects of the treated arms over control at the knots, [A - 1, M, K].
        control: Control's mean outcomes, [K].
    """

    knots: np.ndarray
    effects: np.ndarray
    control: np.ndarray


def fit_curves(scores: np.ndarray, rows: Batch, shape: Shape) -> Curves:
    """Curves of randomized rows.

    Args:
        scores: Of the treated arms, within [-1, 1], [N, A - 1].
        rows: The rows, N, with outcomes scaled for training.
        shape: Gives worth and costs.
    """
    arm, y = rows.arm.cpu().numpy(), rows.y.cpu().numpy().astype(np.float64)
    inverse = (rows.weight / rows.propensity).cpu().numpy().astype(np.float64)
    mass = rows.y_mask.cpu().numpy() * inverse[:, None]
    knots = np.empty((shape.arms - 1, KNOTS))
    effects = np.empty((shape.arms - 1, KNOTS, shape.outcome_count))
    for treated in range(shape.arms - 1):  # a handful of arms, once a training
        pair = (arm == 0) | (arm == treated + 1)
        sides = np.stack([arm[pair] == 0, arm[pair] == treated + 1])
        knots[treated], effects[treated] = _arm(
            scores[pair, treated], sides, y[pair], mass[pair], shape, treated + 1
        )
    control = _ratio((mass * y)[arm == 0].sum(0), mass[arm == 0].sum(0))
    return Curves(knots, _within(effects, control, shape), control)


def _arm(
    score: np.ndarray,
    sides: np.ndarray,
    y: np.ndarray,
    mass: np.ndarray,
    shape: Shape,
    arm: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Knots [M] and effects [M, K] of one arm from its rows and control's."""
    from sklearn.isotonic import isotonic_regression

    bins = int(np.clip(sides.sum(1).min() // ROWS_A_BIN, 1, KNOTS - 2))
    cuts = np.unique(np.quantile(score, np.arange(1, bins) / bins)) if bins > 1 else np.empty(0)
    of, bins = np.searchsorted(cuts, score, side="right"), len(cuts) + 1
    member = np.eye(bins)[of].T  # [bins, rows]
    rows = member.sum(1)
    middle = _ratio(member @ score, rows)
    weighted, summed = mass * sides[:, :, None], mass * y * sides[:, :, None]
    means = _ratio(member @ summed, member @ weighted)  # [2, bins, K]
    known = ((member @ weighted).min(0) > 0).all(1)
    if not known.any():
        return np.linspace(-1.0, 1.0, KNOTS), _slope(shape)
    place, rows, raw = middle[known], rows[known], (means[1] - means[0])[known]
    smooth = np.column_stack([_monotone(place, each, rows) for each in raw.T])
    worth = np.array(shape.values)
    cost = _cost(smooth, rows, shape, arm)
    value = raw @ worth
    ratio = isotonic_regression(value / cost, sample_weight=cost * rows)
    at = np.linspace(0, 1, len(place) + 2)  # the scores' ends get knots of their own
    place, cost = np.concatenate([[-1.0], place, [1.0]]), np.pad(cost, 1, mode="edge")
    ratio = np.pad(ratio, 1, mode="edge")
    ratio = ratio + TILT * max(np.abs(ratio).max(), 1e-6) * (at - 0.5)
    smooth = np.pad(smooth, ((1, 1), (0, 0)), mode="edge")
    if worth.any():
        smooth += np.outer(ratio * cost - smooth @ worth, worth) / (worth @ worth)
    if shape.cost_outcome is not None:
        smooth[:, shape.cost_outcome] = cost / shape.cost_scale
    short = KNOTS - len(place)  # a curve of few bins repeats its last knot
    return np.pad(place, (0, short), mode="edge"), np.pad(smooth, ((0, short), (0, 0)), mode="edge")


def _monotone(place: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values made to rise, or to fall where they fall on the whole."""
    from sklearn.isotonic import isotonic_regression

    centre = np.average(place, weights=rows)
    rises = bool(np.sum(rows * (place - centre) * values) >= 0.0)
    return np.asarray(isotonic_regression(values, sample_weight=rows, increasing=rises))


def _cost(effects: np.ndarray, rows: np.ndarray, shape: Shape, arm: int) -> np.ndarray:
    """Cost effect of each bin, above 0."""
    if shape.cost_outcome is None:
        return np.full(len(rows), shape.arm_costs[arm] or 1.0)
    cost = effects[:, shape.cost_outcome] * shape.cost_scale
    mean = abs(np.average(cost, weights=rows))
    return np.maximum(cost, max(LEAST_COST * mean, 1e-6 * shape.cost_scale))


def _slope(shape: Shape) -> np.ndarray:
    """Effects that only keep the order, [M, K]: what is said of an arm that nobody got."""
    worth, place = np.array(shape.values), np.linspace(-1.0, 1.0, KNOTS)
    effects = TILT * np.outer(place, worth) / max(float(worth @ worth), 1e-12)
    if shape.cost_outcome is not None:
        effects[:, shape.cost_outcome] = TILT
    return effects


def _within(effects: np.ndarray, control: np.ndarray, shape: Shape) -> np.ndarray:
    """Effects, all shrunk alike where a binary outcome would leave [0, 1]: clipping would make ties."""
    binary = np.array([kind == "binary" for kind in shape.outcomes])
    room = np.where(effects > 0, 1.0 - control, control)[..., binary]
    used = np.abs(effects[..., binary])
    tight = used > room
    return effects * (np.min(room[tight] / used[tight]) if tight.any() else 1.0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
