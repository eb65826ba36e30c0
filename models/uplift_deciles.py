"""Is predicted uplift right in size? What was predicted and what was observed, by tenths of the units.

Beside the tenths: the root of the calibration error of Xu & Yadlowsky (AISTATS 2022), and the rising
map from predicted to observed that fits best (van der Laan et al., ICML 2023); both from the rows'
pseudo-effects (``models/metrics/uplift_calibration.py``), for which the model's own answers serve as
predictions, since it never saw these rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.metrics import (
    Interval,
    IsotonicUplift,
    UpliftRow,
    normal_interval,
    pseudo_effects,
    uplift_calibration_error,
)

BINS = 10
CONVENTION = (
    "root mean square of predicted less true uplift over tenths of the units, noise taken out; "
    "0 where predictions are right in size"
)


@dataclass(frozen=True)
class Deciles:
    """Units in ten bins of predicted uplift, least first: what was predicted and what was observed.

    Attributes:
        predicted: Mean of the bins.
        observed, low, high: Effect in the bins, with its interval.
        map_from, map_to: The isotonic map from predicted to observed uplift, linear between points.
    """

    arm: str
    outcome: str
    predicted: list[float]
    observed: list[float]
    low: list[float]
    high: list[float]
    map_from: list[float] = field(default_factory=list)
    map_to: list[float] = field(default_factory=list)


def uplift_deciles(
    arm: str,
    outcome: str,
    y: np.ndarray,
    answers: np.ndarray,
    given: np.ndarray,
    propensity: np.ndarray,
    *,
    treated: int,
    confidence: float,
    seed: int,
) -> tuple[Deciles, UpliftRow]:
    """The tenths of an arm and outcome, and their calibration error as a row of the metrics' table.

    Args:
        arm, outcome: Names.
        y: The outcome, [N].
        answers: The model's expected outcome of every arm, [N, A].
        given: Arm given [N]; ``treated`` and 0 are there.
        propensity: Its probability, [N].
        treated: The arm.
        confidence, seed: Of the intervals.
    """
    score = answers[:, treated] - answers[:, 0]
    effect = pseudo_effects(y, given, propensity, q_hat=answers, treated=treated)
    squared = uplift_calibration_error(
        score, effect, bins=min(BINS, len(y) // 2), confidence=confidence, seed=seed
    )
    root = Interval(
        _root(squared.estimate), _root(squared.low), _root(squared.high), squared.confidence
    )
    fitted = IsotonicUplift.fit(score, effect)
    pair = (given == treated) | (given == 0)
    tenths = _tenths(y[pair], score[pair], given[pair] == treated, propensity[pair], confidence)
    columns = [list(column) for column in zip(*tenths)] or [[], [], [], []]
    predicted, observed, low, high = columns
    row = UpliftRow(
        arm,
        outcome,
        "calibration_error",
        CONVENTION,
        root,
        int((given == treated).sum()),
        int((given == 0).sum()),
    )
    bends, values = fitted.predicted.tolist(), fitted.calibrated.tolist()
    return Deciles(arm, outcome, predicted, observed, low, high, bends, values), row


def _root(squared: float) -> float:
    return float(np.sqrt(max(squared, 0.0)))


def _tenths(
    y: np.ndarray,
    score: np.ndarray,
    treated: np.ndarray,
    propensity: np.ndarray,
    confidence: float,
) -> list[tuple[float, float, float, float]]:
    """Of each bin: mean prediction, effect, and its interval."""
    order = np.argsort(score, kind="stable")
    found: list[tuple[float, float, float, float]] = []
    for rows in np.array_split(order, min(BINS, len(order))):
        t, c = rows[treated[rows]], rows[~treated[rows]]
        if len(t) < 2 or len(c) < 2:
            continue
        effect, variance = 0.0, 0.0
        for sign, group in ((1, t), (-1, c)):
            weight = 1 / propensity[group]
            mean = np.average(y[group], weights=weight)
            effect += sign * mean
            variance += float(np.sum((weight * (y[group] - mean)) ** 2) / weight.sum() ** 2)
        interval = normal_interval(float(effect), variance**0.5, confidence)
        found.append((float(score[rows].mean()), interval.estimate, interval.low, interval.high))
    return found
