"""The table of metrics as another library computes them, with intervals by drawing rows again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from campaigns.errors import DataError, choices
from models.metrics import (
    CONVENTIONS,
    DEFAULT_METRICS,
    Interval,
    UpliftRow,
    get_metric,
    in_convention,
    percentile_interval,
)
from models.metrics.intervals import poisson_counts

REPLICATES = 100
LIBRARIES = {
    "sklift": ("scikit-uplift's", ("qini", "auuc", "lift@30")),
    "causalml": ("causalml's", ("qini", "auuc", "autoc", "lift@30")),
    "upliftml": ("upliftml's", ("qini", "auuc")),
    "econml": ("econml's", ("qini", "autoc")),
}
_ANY = [4.0, 3.0, 2.0, 1.0]
_BINARY_ONLY = {("sklift", "auuc"), ("sklift", "qini_positive")}


def default_metrics(convention: str) -> tuple[str, ...]:
    """The best-known metrics of a convention.

    Raises:
        DataError: There is no such convention; lists those there are.
    """
    if convention not in CONVENTIONS:
        raise DataError(
            f"metrics: there is no convention '{convention}'; use {choices(CONVENTIONS)}."
        )
    return DEFAULT_METRICS if convention == "updraft" else LIBRARIES[convention][1]


def require_metrics(convention: str, names: Sequence[str]) -> None:
    """Refuse a convention, or a metric that it doesn't have, before any work is done.

    Raises:
        DataError: It is none; lists those there are.
    """
    default_metrics(convention)
    for name in names:
        if convention == "updraft":
            get_metric(name)
        else:
            chance = [0.5] * 4 if convention == "econml" else None
            in_convention(convention, name, [0, 1, 1, 0], _ANY, [1, 0, 1, 0], propensity=chance)


def convention_rows(
    convention: str,
    predicted: np.ndarray,
    y: np.ndarray,
    given: np.ndarray,
    propensity: np.ndarray,
    *,
    arm_names: Sequence[str],
    outcome_names: Sequence[str],
    metrics: Sequence[str],
    confidence: float,
    seed: int,
) -> list[UpliftRow]:
    """As :func:`models.metrics.uplift_table`, in the convention of a library.

    Args:
        convention: One of ``LIBRARIES``.
        predicted: Potential outcomes [N, A, K].
        y: Observed outcomes [N, K], NaN where not observed.
        given: Arm given [N], 0 control.
        propensity: Its probability [N]. Only econml's numbers use it; with the others a note says so
            where it varies within an arm.
        arm_names, outcome_names: A and K names.
        metrics: Names that the convention has.
        confidence, seed: Of the intervals.

    Raises:
        DataError: The convention has no such metric; lists those it has.
    """
    table = []
    for a, arm in enumerate(arm_names[1:], start=1):
        for k, outcome in enumerate(outcome_names):
            used = ((given == a) | (given == 0)) & np.isfinite(y[:, k])
            treated = (given[used] == a).astype(np.int64)
            contrast = _Contrast(
                convention,
                y[used, k],
                predicted[used, a, k] - predicted[used, 0, k],
                treated,
                propensity[used],
                arms=len(arm_names),
                confidence=confidence,
                seed=seed,
            )
            heads = int(treated.sum()), int(len(treated) - treated.sum())
            for metric in metrics:
                interval, note = contrast.measured(metric)
                told = f"{LIBRARIES[convention][0]} {metric}"
                table.append(UpliftRow(arm, outcome, metric, told, interval, *heads, note))
    return table


class _Contrast:
    """One arm against control, one outcome."""

    def __init__(
        self,
        convention: str,
        y: np.ndarray,
        score: np.ndarray,
        treated: np.ndarray,
        propensity: np.ndarray,
        *,
        arms: int,
        confidence: float,
        seed: int,
    ) -> None:
        self.convention, self.confidence, self.seed = convention, confidence, seed
        self.y, self.score, self.treated = y, score, treated
        given = [np.unique(propensity[treated == each]) for each in (0, 1)]
        self.varies = any(len(each) > 1 for each in given)
        self.chance: np.ndarray | None = propensity
        if arms > 2:  # of the two arms that are compared, one was given for certain
            self.chance = None if self.varies else propensity / sum(float(e.sum()) for e in given)

    def measured(self, metric: str) -> tuple[Interval, str]:
        """The metric with its interval, and what there is to say of it."""
        undefined = Interval(np.nan, np.nan, np.nan, self.confidence)
        if len(np.unique(self.treated)) < 2:
            return undefined, f"{int(self.treated.sum())} of {len(self.treated)} rows treated"
        binary = bool(np.isin(self.y, (0, 1)).all())
        if (self.convention, metric) in _BINARY_ONLY and not binary:
            return undefined, "needs outcomes of 0 and 1"
        if self.convention == "econml" and self.chance is None:
            return undefined, "needs the probability of both arms, which varies and isn't logged"
        every = np.arange(len(self.y))
        estimate = self._of(metric, every)
        draws = [
            self._of(metric, np.repeat(every, counts))
            for part in poisson_counts(len(every), REPLICATES, self.seed)
            for counts in part
        ]
        found = percentile_interval(estimate, np.array(draws), self.confidence)
        if not np.isfinite(estimate):
            return found, "not defined on these rows"
        ignored = self.varies and self.convention != "econml"
        return found, "knows no propensities, and they vary here" if ignored else ""

    def _of(self, metric: str, rows: np.ndarray) -> float:
        if len(np.unique(self.treated[rows])) < 2:
            return float("nan")
        log = self.y[rows], self.score[rows], self.treated[rows]
        if self.convention != "econml" or self.chance is None:
            return in_convention(self.convention, metric, *log)
        level = np.full(
            (len(rows), 2), self.y.mean()
        )  # as good as no outcome model, but for its noise
        return in_convention("econml", metric, *log, propensity=self.chance[rows], q_hat=level)
