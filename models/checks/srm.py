"""Sample ratio: did the arms come as often as the log's own propensities say?

Where they did not, rows were lost or drawn otherwise than written down, and no effect estimated from
them can be trusted (Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled
Experiments", KDD 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from campaigns.arms import ArmTable
from campaigns.errors import CheckFailed, DataError
from campaigns.spec import Campaign
from models.metrics.experiments.counts import sequential_counts

THRESHOLD = 0.001  # looked at on every run: one sound log in a thousand may be stopped
TOLERANCE = 1e-6  # propensities closer than this, relatively, are one propensity


@dataclass(frozen=True)
class SampleRatio:
    """What the test saw.

    Attributes:
        p_value: Probability of counts at least so far off, were the propensities true.
        counts: Trial rows of each arm, by name.
        expected: The rows that the propensities promise. Where they differ between rows: the arm's
            rows, scaled so that its inverse-propensity weights would sum to the number of rows.
        ok: The p-value is at least the threshold.
        threshold: 0.001.
        method: ``chi-square``; ``inverse propensity``; or ``none`` where the propensities were
            estimated from these very counts, so that there is nothing to test.
        sequential_p: P-value of the same, valid however often a growing log is looked at (Lindon &
            Malek 2022); None but for chi-square, and where the rows have no time.
        broken_since: When that fell below the threshold (ISO 8601), or None.
    """

    p_value: float
    counts: dict[str, int]
    expected: dict[str, float]
    ok: bool
    threshold: float
    method: str
    sequential_p: float | None = None
    broken_since: str | None = None


def sample_ratio(frame: pd.DataFrame, campaign: Campaign) -> SampleRatio:
    """Test a decision frame's trial rows (explored, not held out).

    Where each arm has one ``explored_propensity`` p_a and they sum to 1: Pearson's chi-square of the
    counts against N p_a. Else Wald's test that the Horvitz-Thompson counts sum(1[arm = a] / p) are N.

    Where all propensities are at least 1/A and some are above, an arm can't have been open to every
    row: the draw was uniform over the arms that a unit was eligible for. Which ones isn't logged, so
    control (always open) is tested on all rows, a treatment on the rows that had every arm.

    Raises:
        DataError: No trial row, or one without a propensity.
    """
    trial, arm, p = trial_rows(frame)
    arms = campaign.arm_table
    counts = np.bincount(arm, minlength=len(arms))
    constant = _constant(arm, p, counts)
    if campaign.propensity == "estimate":
        return _result(arms, 1.0, counts, counts, "none")
    if constant is not None:
        expected = constant * len(arm)
        result = _result(arms, _chi_square(counts, expected), counts, expected, "chi-square")
        return _over_time(result, frame.loc[trial], arm, constant)
    p_value, expected = _wald(arm, p, len(arms))
    return _result(arms, p_value, counts, expected, "inverse propensity")


def require_sample_ratio(frame: pd.DataFrame, campaign: Campaign) -> SampleRatio:
    """As :func:`sample_ratio`, for a run that must stop.

    Raises:
        CheckFailed: The arms didn't come as often as they should; with the numbers.
    """
    result = sample_ratio(frame, campaign)
    if not result.ok:
        arms = ", ".join(
            f"{name} {count:,} (expected {result.expected[name]:,.0f})"
            for name, count in result.counts.items()
        )
        since = f" (since {result.broken_since})" if result.broken_since else ""
        raise CheckFailed(
            f"sample ratio mismatch{since}: p = {result.p_value:.2g}, "
            f"below {result.threshold:g}: {arms}; "
            "rows were lost or drawn otherwise than their propensities say: "
            "mend the log before learning from it"
        )
    return result


def split_ratio(
    variant: np.ndarray, shares: np.ndarray, names: Sequence[str], when: np.ndarray | None = None
) -> SampleRatio:
    """Test that units came into an experiment's variants as its shares say: Pearson's chi-square.

    Args:
        variant: Index of each unit's variant, in the order of arrival, [N], N at least 1.
        shares: Designed share of each variant, [V]; they sum to 1.
        names: Of the variants, [V].
        when: The moment that each unit came, datetime64 [N]; None: unknown.
    """
    counts = np.bincount(variant, minlength=len(shares))
    expected = shares * len(variant)
    p_value = _chi_square(counts, expected)
    test = sequential_counts(variant, shares)
    since = test.first_below(THRESHOLD)
    moment = None if since is None or when is None else pd.Timestamp(when[since]).isoformat()
    return SampleRatio(
        p_value=p_value,
        counts=dict(zip(names, counts.tolist())),
        expected=dict(zip(names, expected.tolist())),
        ok=p_value >= THRESHOLD,
        threshold=THRESHOLD,
        method="chi-square",
        sequential_p=test.p_value,
        broken_since=moment,
    )


def trial_rows(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows are of the trial, explored and not held out [N], and their arms and propensities.

    Raises:
        DataError: No such row, or one without a propensity.
    """
    trial = frame["explored"].to_numpy(dtype=bool) & ~frame["holdout"].to_numpy(dtype=bool)
    arm = frame["arm"].to_numpy(dtype=np.int64)[trial]
    p = frame["explored_propensity"].to_numpy(dtype=np.float64)[trial]
    if not len(arm):
        raise DataError(
            f"sample ratio: none of {len(frame)} rows was drawn at random (explored, not held out); "
            "effects are learned from such rows: explore, or mark the rows of the trial as explored"
        )
    if wrong := int((~((p > 0) & (p <= 1))).sum()):
        raise DataError(
            f"sample ratio: {wrong} of {len(p)} explored rows have no explored_propensity in (0, 1]; "
            "it is the probability of the arm given that it was drawn at random"
        )
    return trial, arm, p


def everything_open(arm: np.ndarray, p: np.ndarray, arms: int) -> np.ndarray:
    """The trial rows that could have got every arm [N]: all, unless propensities say otherwise."""
    counts = np.bincount(arm, minlength=arms)
    if _constant(arm, p, counts) is None and _some_closed(p, arms):
        return p <= (1 + TOLERANCE) / arms
    return np.ones(len(arm), dtype=bool)


def _some_closed(p: np.ndarray, arms: int) -> bool:
    """Whether arms were closed to some rows: were all open to all, some p were at most 1 / A."""
    return bool(p.min() >= (1 - TOLERANCE) / arms)


def _over_time(
    result: SampleRatio, trial: pd.DataFrame, arm: np.ndarray, constant: np.ndarray
) -> SampleRatio:
    if "decided_at" not in trial:
        return result
    order = np.argsort(trial["decided_at"].to_numpy(dtype="datetime64[ns]"), kind="stable")
    test = sequential_counts(arm[order], constant / constant.sum())
    since = test.first_below(THRESHOLD)
    return replace(
        result,
        sequential_p=test.p_value,
        broken_since=None
        if since is None
        else pd.Timestamp(trial["decided_at"].iloc[order[since]]).isoformat(),
    )


def _result(
    arms: ArmTable, p_value: float, counts: np.ndarray, expected: np.ndarray, method: str
) -> SampleRatio:
    return SampleRatio(
        p_value=p_value,
        counts=dict(zip(arms.names, counts.tolist())),
        expected=dict(zip(arms.names, expected.astype(float).tolist())),
        ok=bool(p_value >= THRESHOLD),
        threshold=THRESHOLD,
        method=method,
    )


def _constant(arm: np.ndarray, p: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
    """Each arm's propensity [A], or None where an arm has several or they don't sum to 1.

    Arms that never came share what the others leave.
    """
    low, high = np.full(len(counts), np.inf), np.zeros(len(counts))
    np.minimum.at(low, arm, p)
    np.maximum.at(high, arm, p)
    seen = counts > 0
    if (high[seen] - low[seen] > TOLERANCE * high[seen]).any():
        return None
    rest = 1.0 - high.sum()
    if rest < -TOLERANCE or (rest > TOLERANCE and seen.all()):
        return None
    return np.where(seen, high, max(rest, 0.0) / max((~seen).sum(), 1))


def _chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    possible = expected > TOLERANCE
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    return float(stats.chi2.sf(statistic, max(possible.sum() - 1, 1)))


def _wald(arm: np.ndarray, p: np.ndarray, arms: int) -> tuple[float, np.ndarray]:
    """P-value, and the rows that each arm's propensities promise, [A]."""
    counts = np.bincount(arm, minlength=arms)
    # An arm that never came may have had no chance; if it had, the others came too often.
    open_to = np.tile(counts > 0, (len(arm), 1))
    if _some_closed(p, arms):
        open_to[:, 1:] &= (p <= (1 + TOLERANCE) / arms)[:, None]
    given = arm[:, None] == np.arange(arms)
    weight = np.where(given & open_to, 1.0 / p[:, None], 0.0)
    excess = weight - open_to  # its mean is 0 under the null
    mean, covariance = excess.mean(axis=0), excess.T @ excess / len(arm)
    size, direction = np.linalg.eigh(covariance)
    # Where propensities hardly differ, one direction hardly varies: it tells nothing, so leave it out.
    told = size > 1e-4 * size.max()
    statistic = len(arm) * ((mean @ direction[:, told]) ** 2 / size[told]).sum()
    ratio = weight.sum(axis=0) / np.maximum(open_to.sum(axis=0), 1)
    expected = np.divide(counts, ratio, out=counts.astype(float), where=ratio > 0)
    return float(stats.chi2.sf(statistic, max(int(told.sum()), 1))), expected
