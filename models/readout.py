"""What an experiment shows: every variant against the reference, outcome by outcome, and its soundness.

A split that broke is told and judged by nothing: where units were lost, or came otherwise than drawn,
a difference says more about who is missing than about the policy (Fabijan et al., "Diagnosing Sample
Ratio Mismatch in Online Controlled Experiments", KDD 2019).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from campaigns.experiment import Experiment
from campaigns.spec import Campaign
from models.checks.covariates import MAX_COLUMNS, MAX_ROWS
from models.checks.srm import THRESHOLD, SampleRatio, split_ratio
from models.metrics.experiments import VariantEffect, compare_variants, covariate_balance
from models.metrics.intervals import Interval

NET_VALUE, COST = "net value", "cost of arms"  # no outcome can be called so
HIGHER, LOWER, OPEN = "higher", "lower", "unclear"
REACHED = 0.95  # of the planned units: those held out are missing
CONSTANT, FEW, BROKEN = "never varies", "too few units", "invalid"


@dataclass(frozen=True, eq=False)
class ExperimentLog:
    """The units of an experiment, N of them, in the order of arrival.

    Attributes:
        variant: Index of each one's variant, [N].
        when: The moment of its first decision, datetime64 [N]; None: not known.
        outcomes: Sum over its decisions, by outcome, [N] each; nan: not observed.
        worth, cost: What its outcomes are worth and what its arms cost, [N]; nan where not known.
        covariates: Known before its first decision, [N, F], finite.
        decisions: How many there are in all.
        notes: What to know when reading it.
    """

    variant: np.ndarray
    when: np.ndarray | None
    outcomes: dict[str, np.ndarray]
    worth: np.ndarray
    cost: np.ndarray
    covariates: np.ndarray
    decisions: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class VariantRow:
    """A variant and an outcome.

    Attributes:
        effect: Mean and difference from the reference.
        relative: The difference over the size of the reference's mean; None where that is 0 or
            there is no difference.
        verdict: "higher", "lower" or "unclear": by the adjusted interval; by the always-valid one
            while planned units are awaited. Else why there is none.
    """

    effect: VariantEffect
    relative: Interval | None
    verdict: str


@dataclass(frozen=True)
class ReadOut:
    """Everything that is shown.

    Attributes:
        units, decisions: That were counted.
        planned: Units that the experiment is planned for, or None.
        sample_ratio: Of the units in the variants.
        balance_p: P-value of the variants' units being alike in their features; None: not told.
        problems: Why no difference is to be read: sentences; else empty.
        outcomes: By outcome, net value and cost last: a row a variant, in the file's order.
        notes: What to know when reading it.
    """

    experiment: str
    campaign: str
    reference: str
    confidence: float
    units: int
    decisions: int
    planned: int | None
    sample_ratio: SampleRatio
    balance_p: float | None
    problems: list[str]
    outcomes: dict[str, dict[str, VariantRow]]
    notes: list[str]

    @property
    def sound(self) -> bool:
        """The split is as designed, as far as can be told."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON-able but for undefined numbers."""
        return asdict(self) | {"sound": self.sound}


def read_out(
    log: ExperimentLog, experiment: Experiment, campaign: Campaign, *, confidence: float = 0.95
) -> ReadOut:
    """Read an experiment out.

    Each interval holds by itself: of twenty that are read, one is wrong by chance. Always-valid ones are
    there if the file says how many ``units`` are planned.

    Args:
        log: What its units did.
        experiment: Shares, reference, planned units.
        campaign: Gives ``min_return``.
        confidence: Of all intervals, in (0, 1).
    """
    names = experiment.names
    ratio = split_ratio(log.variant, experiment.shares, names, log.when)
    balance = _balance_p(log, names.index(experiment.reference))
    problems = []
    if not ratio.ok:
        problems.append(f"units: {_mismatch(ratio)}")
    if balance is not None and balance < THRESHOLD:
        problems.append(
            f"features: the variants' units differ more than a random draw allows (p = {balance:.2g})"
        )
    net = log.worth - campaign.budget.min_return * log.cost
    observed = log.outcomes | {NET_VALUE: net, COST: log.cost}
    notes, unsound = list(log.notes), bool(problems)
    early = len(log.variant) < REACHED * (experiment.units or 0)
    outcomes = {}
    for name, values in observed.items():
        seen = np.isfinite(values)
        broken = unsound
        if seen.any() and not seen.all():
            kept = split_ratio(log.variant[seen], experiment.shares, names)
            notes.append(f"{name}: {int((~seen).sum()):,} units have none and are left out.")
            if ratio.ok and not kept.ok:
                problems.append(f"{name}: {_mismatch(kept)}")
                broken = True
        effects = compare_variants(
            values,
            log.variant,
            experiment.shares,
            reference=names.index(experiment.reference),
            covariates=log.covariates,
            planned=experiment.units,
            confidence=confidence,
        )
        base = effects[names.index(experiment.reference)].mean
        if broken or not seen.any() or np.ptp(values[seen]) == 0:
            unread = BROKEN if broken else CONSTANT if seen.any() else FEW
        else:
            unread = ""
        outcomes[name] = {
            variant: VariantRow(effect, _relative(effect, base), _verdict(effect, unread, early))
            for variant, effect in zip(names, effects)
        }
    if experiment.units is None:
        notes.append("Say how many 'units' are planned to have intervals that hold at every look.")
    elif early:
        notes.append(
            f"{len(log.variant):,} of {experiment.units:,} planned units: until they have come, verdicts "
            "are by the intervals at every look."
        )
    return ReadOut(
        experiment=experiment.name,
        campaign=campaign.name,
        reference=experiment.reference,
        confidence=confidence,
        units=len(log.variant),
        decisions=log.decisions,
        planned=experiment.units,
        sample_ratio=ratio,
        balance_p=balance,
        problems=problems,
        outcomes=outcomes,
        notes=notes,
    )


def _mismatch(ratio: SampleRatio) -> str:
    counts = ", ".join(
        f"{name} {count:,} (expected {ratio.expected[name]:,.0f})"
        for name, count in ratio.counts.items()
    )
    since = f" since {ratio.broken_since}" if ratio.broken_since else ""
    return f"sample ratio mismatch{since}: p = {ratio.p_value:.2g}: {counts}"


def _relative(effect: VariantEffect, base: float) -> Interval | None:
    """Over the reference's mean, which is taken as known."""
    found = effect.difference
    if found is None or not np.isfinite(found.estimate) or base == 0:
        return None
    size = abs(base)
    return Interval(found.estimate / size, found.low / size, found.high / size, found.confidence)


def _verdict(effect: VariantEffect, unread: str, early: bool) -> str:
    if effect.difference is None or unread:
        return "" if effect.difference is None else unread
    if not np.isfinite(effect.difference.estimate):
        return FEW
    interval = effect.always_valid if early else effect.difference
    if interval is None:
        return OPEN
    if interval.low > 0:
        return HIGHER
    return LOWER if interval.high < 0 else OPEN


def _balance_p(log: ExperimentLog, reference: int) -> float | None:
    """Joint test of the covariates of all variants; None where it can't be told."""
    arm = log.variant + (log.variant < reference)
    arm[log.variant == reference] = 0
    if len(arm) > MAX_ROWS:
        some = np.linspace(0, len(arm) - 1, MAX_ROWS).astype(np.int64)
        arm, x = arm[some], log.covariates[some]
    else:
        x = log.covariates
    count = np.bincount(arm)
    directions = x.shape[1] * (len(count) - 1)
    if not x.shape[1] or directions > MAX_COLUMNS or count[0] < 2 or (count[1:] < 2).all():
        return None
    p_value = covariate_balance(x, arm).p_value
    return float(p_value) if np.isfinite(p_value) else None
