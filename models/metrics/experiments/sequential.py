"""Always-valid intervals: look after every row, stop when you like, and still err as seldom as promised.

A 95% interval is right 19 times in 20 at one look that was fixed beforehand. Who looks every day and
stops at the first good one errs far more often. A confidence sequence is right at all looks at once,
19 trials in 20, and pays with some width: at its best row it is 1.55 times as wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import lambertw

from campaigns.errors import DataError
from models.metrics.checks import Array, arm_indices, inverse_propensities, numbers
from models.metrics.intervals import Interval

_HEAVY = 0.1  # a row with more of the sum of squares than this: too early for a normal limit


@dataclass(frozen=True)
class ConfidenceSequence:
    """An interval after every row, all of them valid together.

    ``estimate``, ``low`` and ``high`` are [N]; until there is enough to go by, low and high are
    -inf and inf. ``confidence`` is in (0, 1).
    """

    estimate: Array
    low: Array
    high: Array
    confidence: float

    @property
    def last(self) -> Interval:
        """After the last row."""
        return Interval(
            float(self.estimate[-1]), float(self.low[-1]), float(self.high[-1]), self.confidence
        )

    def first_without(self, value: float = 0.0) -> int | None:
        """The first row (from 0) whose interval leaves ``value`` out; None: all hold it."""
        out = (self.low > value) | (self.high < value)
        return int(out.argmax()) if out.any() else None


def mean_sequence(
    values: ArrayLike, *, best_at: int, first: int = 100, confidence: float = 0.95
) -> ConfidenceSequence:
    """The running mean of ``values`` with intervals that hold at all rows at once.

    Robbins' normal mixture, with the running standard deviation s_t put in for the true one:

        mean_t -+ s_t sqrt((v + 1) / v * log((v + 1) / alpha^2) / t),   v = t rho^2

    rho is chosen such that the interval is narrowest, by this measure, at row ``best_at``. The level is
    kept as the first look moves out (an asymptotic sequence); so no interval is given before row
    ``first``, nor while one row makes up over a tenth of the sum of squares.

    Args:
        values: one a row, in the order of arrival [N].
        best_at: the number of rows that the trial is planned for. Fix it before looking, and give
            the same at every look.
        first: the first row that may be looked at, at least 2.
        confidence: in (0, 1).

    Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric,
    nonasymptotic confidence sequences", 2021 (normal mixture, and rho by Lambert's W); Waudby-Smith,
    Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences", 2024 (running deviation).
    """
    array = numbers("values", values)
    if not 0 < confidence < 1:
        raise DataError(f"metrics: confidence={confidence} isn't a share; use one in (0, 1).")
    if best_at < 1 or first < 2:
        raise DataError(
            f"metrics: best_at={best_at} and first={first}; they are numbers of rows, at least 1"
            " and at least 2."
        )
    rows = np.arange(1, len(array) + 1)
    level = array.mean()
    shifted = array - level  # a mean far above the spread would eat up the digits
    mean = np.cumsum(shifted) / rows
    sum_of_squares = np.maximum(np.cumsum(shifted**2) - rows * mean**2, 0.0)
    alpha = 1 - confidence
    best = -float(lambertw(-(alpha**2) / np.e, -1).real) - 1
    v = rows * best / best_at
    half = np.sqrt((v + 1) / v * np.log((v + 1) / alpha**2) * sum_of_squares) / rows
    heaviest = np.maximum.accumulate((shifted - mean) ** 2)
    early = (rows < first) | (heaviest > _HEAVY * sum_of_squares) | (sum_of_squares == 0)
    half[early] = np.inf
    estimate = mean + level
    return ConfidenceSequence(estimate, estimate - half, estimate + half, confidence)


def effect_sequence(
    y: ArrayLike,
    treatment: ArrayLike,
    propensity: ArrayLike,
    *,
    best_at: int,
    first: int = 100,
    prediction: ArrayLike | None = None,
    confidence: float = 0.95,
) -> ConfidenceSequence:
    """The mean effect of a treatment with intervals that hold at all rows at once.

    The sequence of the mean of

        psi_t = m_1 - m_0 + (1[a_t = 1] - 1[a_t = 0]) / p_t * (y_t - m_{a_t}),

    m_a being the arm's weighted mean before row t, so that psi_t is unbiased whatever came before. The
    first half of the rows before ``first`` only teach the means.

    Args:
        y: outcome [N], in the order of arrival.
        treatment: 1 treated, 0 control [N].
        propensity: of the arm that was given [N].
        best_at: as in :func:`mean_sequence`.
        first: as there; at least 4.
        prediction: of y from what was known before the row's draw [N]; taken off y (CUPED's gain).
        confidence: in (0, 1).

    Raises:
        DataError: shapes differ, something isn't finite, a propensity is outside (0, 1], or there
            are, or are planned, no more rows than the first ones.
    """
    outcome = numbers("y", y)
    rows = len(outcome)
    treated = arm_indices("treatment", treatment, rows, arms=2) == 1
    inverse = inverse_propensities(propensity, rows)
    if inverse is None:
        raise DataError(
            "metrics: propensity is missing; give the arm's share where it is constant."
        )
    if first < 4 or min(rows, best_at) <= first:
        raise DataError(
            f"metrics: first={first} of {rows} rows, with best_at={best_at}; it must be at least 4"
            " and below both."
        )
    if prediction is not None:
        outcome = outcome - numbers("prediction", prediction, (rows,))
    everyone = _before(outcome, np.ones(rows), 0.0)
    psi = np.zeros(rows)
    for sign, group in ((1.0, treated), (-1.0, ~treated)):
        mean = _before(outcome, np.where(group, inverse, 0.0), everyone)
        psi += sign * (mean + np.where(group, inverse * (outcome - mean), 0.0))
    taught = first // 2
    sequence = mean_sequence(
        psi[taught:], best_at=best_at - taught, first=first - taught, confidence=confidence
    )
    return ConfidenceSequence(
        np.append(np.full(taught, np.nan), sequence.estimate),
        np.append(np.full(taught, -np.inf), sequence.low),
        np.append(np.full(taught, np.inf), sequence.high),
        confidence,
    )


def _before(y: Array, weight: Array, otherwise: Array | float) -> Array:
    """Weighted mean of the rows before each [N]; ``otherwise`` where there are none."""
    mass = np.append(0.0, np.cumsum(weight)[:-1])
    total = np.append(0.0, np.cumsum(weight * y)[:-1])
    return np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), otherwise)
