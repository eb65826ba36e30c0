"""Off-policy value: what a policy would have earned, from rows that another policy logged.

Each estimator gives one contribution a row; their mean is the estimate and their spread the interval
(a normal interval from the influence function). Rows are taken as independent: several decisions of
one unit make the interval too narrow, so keep one row a unit or read it as a lower bound. Weights
are importance weights: a row is one draw however much it weighs.

With pi the policy, p the probability of the arm that was given, rho_i = pi(a_i | x_i) / p_i and
q(x, a) the predicted reward:

* IPS (Horvitz & Thompson 1952):   psi_i = rho_i r_i
* SNIPS (Swaminathan & Joachims 2015):  sum rho_i r_i / sum rho_i, linearized
* DR (Dudik, Langford & Li 2011):  psi_i = sum_a pi(a | x_i) q(x_i, a) + rho_i (r_i - q(x_i, a_i))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.checks import (
    Array,
    Index,
    arm_indices,
    inverse_propensities,
    numbers,
    one_of,
    weights,
)
from models.metrics.intervals import Interval, normal_interval

Estimator = Literal["ips", "snips", "dr"]

_FEW = 100.0  # effective rows below which a normal interval isn't to be trusted
_HEAVY = 0.1  # share of all importance weight on one row above which that row decides


@dataclass(frozen=True)
class PolicyValue:
    """A policy's value, or the difference of two, with what it rests on.

    Attributes:
        interval: the estimate and its confidence interval, in units of the reward, per row.
        contributions: one a row; their weighted mean is the estimate [N].
        effective_rows: (sum w rho)^2 / sum (w rho)^2, rows' worth of information (of two policies
            the smaller).
        mean_ratio: weighted mean of rho; 1 where the propensities are right (of two policies the
            one further from 1).
        warning: why the interval shouldn't be trusted, in a sentence; None where overlap is good.
    """

    interval: Interval
    contributions: Array
    effective_rows: float
    mean_ratio: float
    warning: str | None


@dataclass(frozen=True)
class _Log:
    """Checked logged rows."""

    reward: Array
    arm: Index
    inverse: Array
    weight: Array
    q_hat: Array | None


def policy_value(
    policy: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    *,
    q_hat: ArrayLike | None = None,
    estimator: Estimator | None = None,
    weight: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PolicyValue:
    """Mean reward a row under a policy, from rows logged with known propensities.

    Args:
        policy: the arm it would give each row [N] (whole numbers), or its probabilities [N, A]
            (each row sums to 1).
        reward: observed reward of the arm given [N], costs taken off if they count.
        arm: arm given [N].
        propensity: probability of the arm that was given, in (0, 1] [N].
        q_hat: predicted reward of every arm [N, A], from a model that never saw the row's own
            reward (trained elsewhere, or :func:`models.metrics.cross_fit_outcome_model`).
        estimator: "ips" (unbiased, noisy), "snips" (steadier, bias of order 1 / N) or "dr" (needs
            ``q_hat``; right if either the propensities or q_hat are). None: "dr" where there is a
            ``q_hat``, else "snips".
        weight: row weights [N].
        confidence: of the interval, in (0, 1).

    Raises:
        DataError: shapes differ, probabilities don't sum to 1, a propensity is outside (0, 1], or
            there are fewer than two rows.

    >>> given, reward = [0, 0, 1, 1], [1.0, 2.0, 4.0, 6.0]
    >>> found = policy_value([1, 1, 1, 1], reward, given, [0.5, 0.5, 0.5, 0.5])
    >>> found.interval.estimate
    5.0
    >>> found.warning
    'The log is worth only 2 rows for this policy (4 were logged): the interval is a rough one; log more exploration near this policy.'
    """
    log = _check_log(reward, arm, propensity, q_hat, weight)
    chosen = _choose(estimator, log)
    psi, rho = _contributions(_probabilities(policy, "policy", log), log, chosen)
    return _value(psi, [rho], log, confidence)


def policy_difference(
    policy: ArrayLike,
    other: ArrayLike,
    reward: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    *,
    q_hat: ArrayLike | None = None,
    estimator: Estimator | None = None,
    weight: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PolicyValue:
    """Value of ``policy`` minus value of ``other`` on the same rows, paired row by row.

    Where the two agree a row adds nothing, so this interval is far narrower than two separate ones.
    Arguments as in :func:`policy_value`.
    """
    log = _check_log(reward, arm, propensity, q_hat, weight)
    chosen = _choose(estimator, log)
    (psi, rho), (psi_other, rho_other) = (
        _contributions(_probabilities(p, name, log), log, chosen)
        for p, name in ((policy, "policy"), (other, "other"))
    )
    return _value(psi - psi_other, [rho, rho_other], log, confidence)


def _check_log(
    reward: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    q_hat: ArrayLike | None,
    weight: ArrayLike | None,
) -> _Log:
    earned = numbers("reward", reward)
    rows = len(earned)
    if rows < 2:
        raise DataError("metrics: reward has one row; an interval needs at least two.")
    inverse = inverse_propensities(propensity, rows)
    if inverse is None:
        raise DataError("metrics: propensity is missing; an off-policy value can't do without.")
    predicted = None if q_hat is None else numbers("q_hat", q_hat, (rows, None))
    arms = None if predicted is None else predicted.shape[1]
    return _Log(
        earned, arm_indices("arm", arm, rows, arms), inverse, weights(weight, rows), predicted
    )


def _choose(estimator: Estimator | None, log: _Log) -> Estimator:
    one_of("estimator", estimator, (None, "ips", "snips", "dr"))
    if estimator == "dr" and log.q_hat is None:
        raise DataError("metrics: estimator='dr' needs q_hat; give it, or use 'snips'.")
    return estimator or ("snips" if log.q_hat is None else "dr")


def _probabilities(policy: ArrayLike, name: str, log: _Log) -> Array | Index:
    """The arms [N] of a deterministic policy, or the probabilities [N, A] of another."""
    rows = len(log.arm)
    known = None if log.q_hat is None else log.q_hat.shape[1]
    if np.ndim(policy) == 1:
        return arm_indices(name, policy, rows, known)
    array = numbers(name, policy, (rows, known))
    if array.shape[1] <= log.arm.max():
        raise DataError(
            f"metrics: {name} has probabilities of {array.shape[1]} arms, and arm {log.arm.max()}"
            " was given; it must be [N, A]."
        )
    sums = array.sum(axis=1)
    if array.min() < 0 or np.abs(sums - 1).max() > 1e-6:  # float32 probabilities are fine
        raise DataError(
            f"metrics: {name} has probabilities down to {array.min():g} and rows that sum to"
            f" {sums.min():g} .. {sums.max():g}; they must be at least 0 and sum to 1."
        )
    return array


def _contributions(policy: Array | Index, log: _Log, estimator: Estimator) -> tuple[Array, Array]:
    """psi [N] and rho [N]."""
    rows = np.arange(len(log.arm))
    taken = policy == log.arm if policy.ndim == 1 else policy[rows, log.arm]
    rho = taken * log.inverse
    if estimator == "ips":
        return rho * log.reward, rho
    if estimator == "dr" and log.q_hat is not None:
        q = log.q_hat
        direct = q[rows, policy] if policy.ndim == 1 else (policy * q).sum(axis=1)
        return direct + rho * (log.reward - q[rows, log.arm]), rho
    mass = float(log.weight @ rho)
    if mass == 0:
        return np.full(len(rows), np.nan), rho
    estimate = float(log.weight @ (rho * log.reward)) / mass
    return estimate + rho * (log.reward - estimate) * log.weight.sum() / mass, rho


def _value(psi: Array, ratios: list[Array], log: _Log, confidence: float) -> PolicyValue:
    total, rows = log.weight.sum(), len(psi)
    estimate = float(log.weight @ psi / total)
    spread = float(np.sqrt(((log.weight * (psi - estimate)) ** 2).sum() * rows / (rows - 1)))
    effective = [_effective_rows(log.weight * rho) for rho in ratios]
    means = [float(log.weight @ rho / total) for rho in ratios]
    return PolicyValue(
        interval=normal_interval(estimate, spread / float(total), confidence),
        contributions=psi,
        effective_rows=min(effective),
        mean_ratio=max(means, key=lambda mean: abs(mean - 1)),
        warning=next((said for rho in ratios if (said := _overlap_warning(rho, log))), None),
    )


def _effective_rows(mass: Array) -> float:
    squares = float(mass @ mass)
    return float(mass.sum()) ** 2 / squares if squares > 0 else 0.0


def _overlap_warning(rho: Array, log: _Log) -> str | None:
    mass = log.weight * rho
    if mass.sum() == 0:
        return "No logged row got the arm that the policy gives: the log says nothing about it."
    effective = _effective_rows(mass)
    if effective < _FEW:
        return (
            f"The log is worth only {effective:.0f} rows for this policy ({len(rho)} were logged):"
            " the interval is a rough one; log more exploration near this policy."
        )
    heaviest = float(mass.max() / mass.sum())
    if heaviest > _HEAVY:
        return f"One row carries {heaviest:.0%} of the weight: a propensity there is tiny."
    mean = float(mass.sum() / log.weight.sum())
    error = float(rho.std() / np.sqrt(len(rho)))
    if abs(mean - 1) > max(0.05, 4 * error):
        return (
            f"The mean of pi / propensity is {mean:.3f} and should be 1: the propensities don't"
            " match the log, or the policy gives arms that were never logged."
        )
    return None
