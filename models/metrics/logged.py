"""Logged rows that off-policy values are computed from, and how much they tell of a policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.checks import (
    Array,
    Index,
    arm_indices,
    inverse_propensities,
    numbers,
    weights,
)

_FEW = 100.0  # effective rows below which a normal interval isn't to be trusted
_HEAVY = 0.1  # share of all importance weight on one row above which that row decides


@dataclass(frozen=True)
class Log:
    """Checked logged rows: reward, arm, 1 / propensity, weight [N], and predicted rewards [N, A]."""

    reward: Array
    arm: Index
    inverse: Array
    weight: Array
    q_hat: Array | None


def check_log(
    reward: ArrayLike,
    arm: ArrayLike,
    propensity: ArrayLike,
    q_hat: ArrayLike | None,
    weight: ArrayLike | None,
) -> Log:
    """The log, or a DataError that says which argument can't be."""
    earned = numbers("reward", reward)
    rows = len(earned)
    if rows < 2:
        raise DataError("metrics: reward has one row; an interval needs at least two.")
    inverse = inverse_propensities(propensity, rows)
    if inverse is None:
        raise DataError("metrics: propensity is missing; an off-policy value can't do without.")
    predicted = None if q_hat is None else numbers("q_hat", q_hat, (rows, None))
    arms = None if predicted is None else predicted.shape[1]
    return Log(
        earned, arm_indices("arm", arm, rows, arms), inverse, weights(weight, rows), predicted
    )


def policy_probabilities(policy: ArrayLike, name: str, log: Log) -> Array | Index:
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


def effective_rows(mass: Array) -> float:
    """(sum m)^2 / sum m^2 of importance masses [N] (Kish 1965); 0 where all are 0."""
    squares = float(mass @ mass)
    return float(mass.sum()) ** 2 / squares if squares > 0 else 0.0


def overlap_warning(rho: Array, weight: Array) -> str | None:
    """Why the log says too little of a policy with ratios ``rho`` [N]; None where it says enough."""
    mass = weight * rho
    if mass.sum() == 0:
        return "No logged row got the arm that the policy gives: the log says nothing about it."
    effective = effective_rows(mass)
    if effective < _FEW:
        return (
            f"The log is worth only {effective:.0f} rows for this policy ({len(rho)} were logged):"
            " the interval is a rough one; log more exploration near this policy."
        )
    heaviest = float(mass.max() / mass.sum())
    if heaviest > _HEAVY:
        return f"One row carries {heaviest:.0%} of the weight: a propensity there is tiny."
    mean = float(mass.sum() / weight.sum())
    error = float(rho.std() / np.sqrt(len(rho)))
    if abs(mean - 1) > max(0.05, 4 * error):
        return (
            f"The mean of pi / propensity is {mean:.3f} and should be 1: the propensities don't"
            " match the log, or the policy gives arms that were never logged."
        )
    return None
