"""Covariate balance: do the arms hold the same kind of units, as a random draw would have it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from campaigns.errors import DataError
from models.metrics.checks import Array, Index, arm_indices, inverse_propensities, numbers

_BLOCK = 1 << 21  # contrasts in memory at once, rows times directions
_ROWS = 5  # a direction; with fewer, contrasts are too far from normal for the test
_FLAT = 1e-9  # share of the greatest variance below which a direction doesn't vary


@dataclass(frozen=True)
class Balance:
    """How far the arms' covariates are from control's.

    Attributes:
        arms: the arms compared with control [A'].
        differences: standardized mean differences [A', F]: (mean of the arm - mean of control) /
            sqrt of the mean of their variances; nan where neither varies.
        p_value: joint test of all of them at once; nan with fewer than five rows a direction.
        dimensions: how many directions the test has, at most A' * F.
    """

    arms: Index
    differences: Array
    p_value: float
    dimensions: int

    @property
    def worst(self) -> float:
        """The greatest absolute difference; in large trials above 0.1 is a lot (Austin 2009)."""
        seen = np.abs(self.differences[np.isfinite(self.differences)])
        return float(seen.max()) if len(seen) else 0.0


def covariate_balance(
    x: ArrayLike, arm: ArrayLike, *, propensity: ArrayLike | None = None
) -> Balance:
    """Compare each arm's covariates with control's (arm 0), one by one and jointly.

    Means are weighted by inverse propensity. The joint test is Hotelling's on the contrasts
    h_i(a) = (1[a_i = a] / p_i - 1[a_i = 0] / p_i) (x_i - mean x), stacked over arms, whose mean is 0
    where the arms were drawn with those propensities:

        T^2 = N mean(h)' Cov(h)^-1 mean(h),   (N - q) / (q (N - 1)) T^2 ~ F(q, N - q)

    Covariates that repeat each other are counted once (q is the rank). Arms with fewer than two rows
    are left out.

    Args:
        x: covariates known before the draw [N, F]; categories as 0 / 1 columns, and a missing value
            as a number with a 0 / 1 column that says so.
        arm: arm given [N].
        propensity: of the arm that was given [N]; None: the arms' shares.

    Raises:
        DataError: x isn't finite, or control or all other arms have fewer than two rows.

    Source: Austin, "Balance diagnostics for comparing the distribution of baseline covariates", 2009;
    Hansen & Bowers, "Covariate balance in simple, stratified and clustered comparative studies",
    2008 (one test of all covariates); Hotelling 1931.
    """
    features = numbers("x", x, (None, None))
    given = arm_indices("arm", arm, len(features))
    count = np.bincount(given)
    others = np.flatnonzero(count >= 2)
    if count[0] < 2 or len(others) < 2:
        raise DataError(
            f"metrics: rows by arm are {count.tolist()}; balance compares arms with control, arm 0,"
            " so it needs two rows of control and of some other arm."
        )
    others = others[1:]
    inverse = inverse_propensities(propensity, len(given))
    weight = len(given) / count[given] if inverse is None else inverse
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    centred /= np.where(spread > 0, spread, 1.0)
    p_value, rank = _joint(centred, given, weight, others)
    return Balance(others, _differences(centred, given, weight, others), p_value, rank)


def _differences(x: Array, arm: Index, weight: Array, others: Index) -> Array:
    def moments(a: int) -> tuple[Array, Array]:
        rows = arm == a
        share = weight[rows] / weight[rows].sum()
        mean = share @ x[rows]
        return mean, share @ (x[rows] - mean) ** 2

    mean, variance = moments(0)
    found = []
    for a in others:
        own_mean, own_variance = moments(a)
        scale = np.sqrt((variance + own_variance) / 2)
        found.append(np.divide(own_mean - mean, scale, out=np.full(len(mean), np.nan),
                               where=scale > 0))  # fmt: skip
    return np.array(found)


def _joint(x: Array, arm: Index, weight: Array, others: Index) -> tuple[float, int]:
    """P-value and rank."""
    rows, width = len(arm), len(others) * x.shape[1]
    total, squares = np.zeros(width), np.zeros((width, width))
    step = max(1, _BLOCK // width)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        sign = (arm[part, None] == others).astype(np.float64) - (arm[part, None] == 0)
        scaled = sign * weight[part, None]
        contrast = (scaled[:, :, None] * x[part, None, :]).reshape(-1, width)
        total += contrast.sum(axis=0)
        squares += contrast.T @ contrast
    mean = total / rows
    covariance = (squares - rows * np.outer(mean, mean)) / (rows - 1)
    size, direction = np.linalg.eigh(covariance)
    told = size > _FLAT * size.max()
    rank = int(told.sum())
    varied = np.linalg.eigvalsh(x.T @ x)
    wanted = int((varied > _FLAT * varied.max()).sum()) * len(others)
    if rank == 0 or rows < _ROWS * wanted:
        return float("nan"), rank
    t_squared = rows * ((mean @ direction[:, told]) ** 2 / size[told]).sum()
    return float(
        stats.f.sf((rows - rank) / (rank * (rows - 1)) * t_squared, rank, rows - rank)
    ), rank
