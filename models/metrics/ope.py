"""Off-policy value: what a policy would have earned, from rows that another policy logged.

Each estimator gives one contribution a row; their mean is the estimate and their spread the interval
(a normal interval from the influence function). Rows are taken as independent: several decisions of
one unit make the interval too narrow, so keep one row a unit or read it as a lower bound. Weights
are importance weights: a row is one draw however much it weighs. The formulas and their sources are in
:mod:`models.metrics.ope_estimators`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checks import Array
from models.metrics.intervals import Interval, normal_interval
from models.metrics.logged import (
    Log,
    check_log,
    effective_rows,
    overlap_warning,
    policy_probabilities,
)
from models.metrics.ope_estimators import Estimator, Terms, choose, contributions


@dataclass(frozen=True)
class PolicyValue:
    """A policy's value, or the difference of two, with what it rests on.

    Attributes:
        interval: the estimate and its confidence interval, in units of the reward, per row.
        contributions: one a row; their weighted mean is the estimate [N].
        effective_rows: (sum w rho)^2 / sum (w rho)^2, rows' worth of information (of two policies
            the smaller). Whatever the estimator, it is the log's, before any clipping.
        mean_ratio: weighted mean of rho; 1 where the propensities are right (of two policies the
            one further from 1).
        warning: why the interval shouldn't be trusted, in a sentence; None where overlap is good
            and the estimator's bias is small. The direct method always has one: its interval is
            the model's, and the sentence says how far off the log lets that be.
    """

    interval: Interval
    contributions: Array
    effective_rows: float
    mean_ratio: float
    warning: str | None


def policy_value(
    policy: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    *,
    q_hat: ArrayLike | None = None,
    estimator: Estimator | None = None,
    threshold: float | None = None,
    weight: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PolicyValue:
    """Mean reward a row under a policy, from rows logged with known propensities.

    Where no row got an arm of the policy (an all-control log and a policy that treats), "snips" is
    nan, "ips" is 0, those with a ``q_hat`` are the model's word alone, and the warning says so. Rewards
    that never vary have a value without width under "snips", and under "dr" with a right ``q_hat``.

    Args:
        policy: the arm it would give each row [N] (whole numbers), or its probabilities [N, A]
            (each row sums to 1).
        reward: observed reward of the arm given [N], costs taken off if they count.
        arm: arm given [N].
        propensity: probability of the arm that was given, in (0, 1] [N].
        q_hat: predicted reward of every arm [N, A], from a model that never saw the row's own
            reward (trained elsewhere, or :func:`models.metrics.cross_fit_outcome_model`).
        estimator: "ips" (unbiased, noisy), "clipped_ips" (steadier, leans towards 0), "snips"
            (steadier, bias of order 1 / N); with a ``q_hat`` also "dr" (right if either the
            propensities or q_hat are), "switch_dr" (dr without the rows of great ratios: steadier,
            leans towards q_hat) and "dm" (q_hat alone: as right as it is, and its own error isn't in
            the interval). None: "dr" where there is a ``q_hat``, else "snips".
        threshold: greatest ratio that "clipped_ips" and "switch_dr" let through, above 0; None:
            sqrt(N).
        weight: row weights [N].
        confidence: of the interval, in (0, 1).

    Raises:
        DataError: shapes differ, something isn't finite, probabilities don't sum to 1, a propensity
            is outside (0, 1], or there are fewer than two rows.

    >>> given, reward = [0, 0, 1, 1], [1.0, 2.0, 4.0, 6.0]
    >>> found = policy_value([1, 1, 1, 1], reward, given, [0.5, 0.5, 0.5, 0.5])
    >>> found.interval.estimate
    5.0
    >>> found.warning
    'The log is worth only 2 rows for this policy (4 were logged): the interval is a rough one; log more exploration near this policy.'
    """
    log = check_log(reward, arm, propensity, q_hat, weight)
    chosen = choose(estimator, threshold, log)
    terms = contributions(policy_probabilities(policy, "policy", log), log, chosen, threshold)
    return _value(terms.psi, [terms], log, confidence)


def policy_difference(
    policy: ArrayLike,
    other: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    *,
    q_hat: ArrayLike | None = None,
    estimator: Estimator | None = None,
    threshold: float | None = None,
    weight: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PolicyValue:
    """Value of ``policy`` minus value of ``other`` on the same rows, paired row by row.

    Where the two agree a row adds nothing, so this interval is far narrower than two separate ones.
    Arguments as in :func:`policy_value`.
    """
    log = check_log(reward, arm, propensity, q_hat, weight)
    chosen = choose(estimator, threshold, log)
    one, two = (
        contributions(policy_probabilities(given, name, log), log, chosen, threshold)
        for given, name in ((policy, "policy"), (other, "other"))
    )
    return _value(one.psi - two.psi, [one, two], log, confidence)


def _value(psi: Array, terms: list[Terms], log: Log, confidence: float) -> PolicyValue:
    total, rows = log.weight.sum(), len(psi)
    estimate = float(log.weight @ psi / total)
    spread = float(np.sqrt(((log.weight * (psi - estimate)) ** 2).sum() * rows / (rows - 1)))
    effective = [effective_rows(log.weight * each.rho) for each in terms]
    means = [float(log.weight @ each.rho / total) for each in terms]
    said = [overlap_warning(each.rho, log.weight) or each.bias for each in terms]
    return PolicyValue(
        interval=normal_interval(estimate, spread / float(total), confidence),
        contributions=psi,
        effective_rows=min(effective),
        mean_ratio=max(means, key=lambda mean: abs(mean - 1)),
        warning=next((sentence for sentence in said if sentence), None),
    )
