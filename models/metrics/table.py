"""Every arm against control, every outcome, every metric, each with its interval: one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.bootstrap import trial_intervals
from models.metrics.checks import Array, Mask, arm_indices, inverse_propensities, numbers, weights
from models.metrics.intervals import Interval
from models.metrics.registry import Metric, get_metric
from models.metrics.trial import Trial

DEFAULT_METRICS = ("ate", "qini_perfect", "auuc", "lift@30")


@dataclass(frozen=True)
class UpliftRow:
    """One metric of one outcome for one arm against control.

    ``treated`` and ``control`` count the rows used (outcome observed). ``interval`` is nan
    throughout where the metric isn't defined, and ``note`` says why.
    """

    arm: str
    outcome: str
    metric: str
    convention: str
    interval: Interval
    treated: int
    control: int
    note: str = ""


def uplift_table(
    outcomes: ArrayLike,
    y: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike | None = None,
    *,
    arm_names: Sequence[str],
    outcome_names: Sequence[str],
    metrics: Sequence[str] = DEFAULT_METRICS,
    weight: ArrayLike | None = None,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[UpliftRow]:
    """Metrics for each arm against control (arm 0) and each outcome.

    The score of arm a for outcome k is ``outcomes[:, a, k] - outcomes[:, 0, k]``, on the rows that
    got a or control and whose outcome was observed.

    Args:
        outcomes: predicted potential outcomes [N, A, K] (a ranking model's scores do as well).
        y: observed outcomes [N, K], NaN where not observed (those rows are left out, an outcome at
            a time).
        arm: arm given [N], 0 control.
        propensity: probability of the arm that was given [N]; None for constant propensities.
        arm_names, outcome_names: A and K names.
        metrics: names for :func:`models.metrics.get_metric`.
        weight: row weights [N].
        replicates: bootstrap replicates; 0 for no intervals.
        confidence, seed: of the intervals.

    Returns:
        (A - 1) * K * len(metrics) rows, arms outermost.
    """
    arms, kinds = len(arm_names), len(outcome_names)
    predicted = numbers("outcomes", outcomes, (None, arms, kinds))
    rows = len(predicted)
    seen = numbers("y", y, (rows, kinds), missing=True)
    given = arm_indices("arm", arm, rows, arms)
    inverse = inverse_propensities(propensity, rows)
    heavy = weights(weight, rows)
    wanted = [get_metric(name) for name in metrics]

    table: list[UpliftRow] = []
    for a in range(1, arms):
        for k in range(kinds):
            used = ((given == a) | (given == 0)) & ~np.isnan(seen[:, k]) & (heavy > 0)
            treated = given == a
            score = predicted[:, a, k] - predicted[:, 0, k]
            trial = _trial(used, seen[:, k], score, treated, heavy, inverse)
            heads = int(trial.treated.sum()), int(trial.control.sum())
            results = _measure(trial, wanted, replicates, confidence, seed)
            table += [
                UpliftRow(
                    arm_names[a], outcome_names[k], m.name, m.convention, interval, *heads, note
                )
                for m, (interval, note) in zip(wanted, results)
            ]
    return table


def _trial(
    used: Mask, y: Array, score: Array, treated: Mask, weight: Array, inverse: Array | None
) -> Trial:
    return Trial(
        y=y[used],
        score=score[used],
        treated=treated[used],
        control=~treated[used],
        weight=weight[used],
        inverse=None if inverse is None else inverse[used],
    )


def _measure(
    trial: Trial, wanted: list[Metric], replicates: int, confidence: float, seed: int
) -> list[tuple[Interval, str]]:
    undefined = Interval(np.nan, np.nan, np.nan, confidence)
    if not (trial.treated.any() and trial.control.any()):
        note = f"{int(trial.treated.sum())} treated and {int(trial.control.sum())} control rows"
        return [(undefined, note)] * len(wanted)
    notes = [
        "needs outcomes of 0 and 1" if metric.binary_only and not trial.binary else ""
        for metric in wanted
    ]
    cores = [metric.core for metric, note in zip(wanted, notes) if not note]
    found = iter(
        trial_intervals(trial, cores, replicates=replicates, confidence=confidence, seed=seed)
        if cores
        else []
    )
    return [(undefined, note) if note else _with_note(next(found)) for note in notes]


def _with_note(interval: Interval) -> tuple[Interval, str]:
    return interval, "" if np.isfinite(interval.estimate) else "not defined on these rows"
