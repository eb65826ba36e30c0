"""Variants of an experiment against one of them: means, differences and their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.checks import Array, Index, arm_indices, numbers
from models.metrics.experiments.cuped import cuped_effect
from models.metrics.experiments.sequential import effect_sequence
from models.metrics.intervals import Interval

UNITS_PER_COVARIATE = 5  # in the smaller variant; with fewer, slopes are mostly noise
LEAST = 3  # units of a variant that an interval needs
FIRST = 100  # units before an always-valid interval is given


@dataclass(frozen=True)
class VariantEffect:
    """One variant and one outcome.

    Attributes:
        units: With the outcome.
        mean: Of the outcome; nan without units.
        difference: Its mean less the reference's, adjusted; None for the reference, nan where either
            has fewer than three units.
        unadjusted: The same without covariates.
        always_valid: The same at every look; None where it wasn't asked for, or nothing can be
            said yet.
        variance_reduction: Share of the variance that the covariates took away; nan without.
    """

    units: int
    mean: float
    difference: Interval | None = None
    unadjusted: Interval | None = None
    always_valid: Interval | None = None
    variance_reduction: float = float("nan")


def compare_variants(
    y: ArrayLike,
    variant: ArrayLike,
    shares: ArrayLike,
    *,
    reference: int = 0,
    covariates: ArrayLike | None = None,
    planned: int | None = None,
    confidence: float = 0.95,
) -> list[VariantEffect]:
    """Compare every variant of an experiment with the reference, one outcome.

    Differences are :func:`cuped_effect`'s, between the two variants' units alone; without covariates, or
    with fewer than five units a covariate, they are Welch's. Always-valid intervals are
    :func:`effect_sequence`'s; there each unit's outcome is forecast by a regression on the units before.

    Args:
        y: Outcome of each unit, in the order of arrival, [N]; nan: not observed, the unit is left out.
        variant: Index of each unit's variant, [N].
        shares: Designed share of every variant, [V].
        reference: Index of the variant that the others are compared with.
        covariates: Known before the draw, [N, F], finite.
        planned: Units that the experiment is planned for: where always-valid intervals are narrowest.
            Fixed before the first look; None: no such intervals.
        confidence: Of all intervals, in (0, 1).

    Returns:
        One a variant, [V].

    Raises:
        DataError: Shapes differ, or something that must be finite isn't.
    """
    parts = numbers("shares", shares)
    outcome = numbers("y", y, missing=True)
    group = arm_indices("variant", variant, len(outcome), arms=len(parts))
    if not 0 <= reference < len(parts):
        raise DataError(f"metrics: reference={reference} is none of {len(parts)} variants.")
    seen = ~np.isnan(outcome)
    x = np.zeros((len(outcome), 0))
    if covariates is not None and np.size(covariates):
        x = numbers("covariates", covariates, (len(outcome), None))
    outcome, group, x = outcome[seen], group[seen], x[seen]
    return [
        _compared(outcome, group, x, v, reference, parts, planned, confidence)
        for v in range(len(parts))
    ]


def _compared(
    y: Array,
    group: Index,
    x: Array,
    variant: int,
    reference: int,
    shares: Array,
    planned: int | None,
    confidence: float,
) -> VariantEffect:
    mine = group == variant
    units = int(mine.sum())
    mean = float(y[mine].mean()) if units else float("nan")
    if variant == reference:
        return VariantEffect(units, mean)
    others = int((group == reference).sum())
    if min(units, others) < LEAST:
        nothing = Interval(float("nan"), float("nan"), float("nan"), confidence)
        return VariantEffect(units, mean, nothing, nothing)
    both = mine | (group == reference)
    outcome, treated, known = y[both], mine[both].astype(np.int64), x[both]
    known = known[:, np.ptp(known, axis=0) > 0]
    if min(units, others) < UNITS_PER_COVARIATE * (known.shape[1] + 1):
        known = known[:, :0]
    # An empty set of covariates leaves the difference of means, as no column of zeros would.
    found = cuped_effect(
        outcome,
        treated,
        known if known.shape[1] else np.zeros((len(outcome), 1)),
        confidence=confidence,
    )
    return VariantEffect(
        units=units,
        mean=mean,
        difference=found.interval if known.shape[1] else found.unadjusted,
        unadjusted=found.unadjusted,
        always_valid=None
        if planned is None
        else _always_valid(
            outcome, treated, known, shares[variant], shares[reference], planned, confidence
        ),
        variance_reduction=found.variance_reduction if known.shape[1] else float("nan"),
    )


def _always_valid(
    y: Array, treated: Index, x: Array, mine: float, theirs: float, planned: int, confidence: float
) -> Interval | None:
    best_at = round(planned * (mine + theirs))
    if min(len(y), best_at) <= FIRST:
        return None
    share = mine / (mine + theirs)
    found = effect_sequence(
        y,
        treated,
        np.where(treated == 1, share, 1 - share),
        best_at=best_at,
        first=FIRST,
        prediction=forecasts(y, x),
        confidence=confidence,
    ).last
    return found if np.isfinite(found.low) else None


def forecasts(y: Array, x: Array) -> Array:
    """Each unit's outcome as a regression on units before it forecasts it, [N].

    The regression is fitted anew whenever the units have doubled; before the first, the forecast is
    the mean so far. What comes later never enters, so differences of the rest stay unbiased.

    Args:
        y: Outcomes in the order of arrival, [N].
        x: Covariates [N, F].
    """
    rows = len(y)
    before = np.append(0.0, np.cumsum(y)[:-1]) / np.maximum(np.arange(rows), 1)
    at = max(FIRST // 2, 2 * UNITS_PER_COVARIATE * (x.shape[1] + 1))
    if not x.shape[1]:
        return before
    design = np.column_stack([np.ones(rows), x])
    while at < rows:
        slopes, *_ = np.linalg.lstsq(design[:at], y[:at], rcond=None)
        before[at : 2 * at] = design[at : 2 * at] @ slopes
        at *= 2
    return before
