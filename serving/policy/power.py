"""What a trial can see: the smallest effect that it detects with a given power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from campaigns.errors import DataError
from serving.policy.inputs import Floats, numbers
from serving.policy.trial import Trial


def binary_variance(rate: ArrayLike) -> Floats:
    """Variance of a binary outcome with this rate: p (1 - p)."""
    rates = numbers("rate", rate)
    if ((rates < 0) | (rates > 1)).any():
        raise DataError(f"rate must be from 0 to 1, but reaches {rates.min()} to {rates.max()}.")
    return rates * (1 - rates)


def detectable_effect(
    n_arm: ArrayLike,
    n_control: ArrayLike,
    variance: ArrayLike,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Floats:
    """The difference of two means that a two-sided test at level alpha finds with this power.

    ``(z_{1 - alpha/2} + z_power) * sqrt(variance / n_arm + variance / n_control)``, the normal
    approximation (Cohen 1988, "Statistical Power Analysis", chapter 2).

    Args:
        n_arm: Units that get the arm; broadcasts with the rest.
        n_control: Units that get control.
        variance: The outcome's variance within an arm (sd ** 2, or `binary_variance` of its rate).
        alpha: Level of the test, in (0, 1).
        power: Probability of finding the effect, in (0, 1).

    Returns:
        The effect, in the outcome's unit; infinite where an arm has no unit.
    """
    for name, level in (("alpha", alpha), ("power", power)):
        if not 0 < level < 1:
            raise DataError(f"{name} must be between 0 and 1, not {level!r}.")
    treated, control = numbers("n_arm", n_arm), numbers("n_control", n_control)
    spread = numbers("variance", variance)
    for name, given in (("n_arm", treated), ("n_control", control), ("variance", spread)):
        if (given < 0).any():
            raise DataError(f"{name} must not be negative, but holds {given.min()}.")
    with np.errstate(divide="ignore", invalid="ignore"):
        rarity = 1 / treated + 1 / control
        error = np.where(np.isinf(rarity), np.inf, np.sqrt(spread * rarity))
    return (norm.ppf(1 - alpha / 2) + norm.ppf(power)) * error


def power_report(
    trial: Trial,
    outcome_means: ArrayLike,
    outcome_variances: ArrayLike,
    names: Sequence[str],
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> list[dict[str, Any]]:
    """The detectable effect of every arm on every outcome.

    An arm is compared with the control units that could have got it.

    Args:
        trial: From `sample_trial`.
        outcome_means: Mean of each outcome under control, [K].
        outcome_variances: Its variance, [K].
        names: Names of the outcomes, [K].
        alpha: Level of the two-sided test.
        power: Probability of finding the effect.

    Returns:
        One dict an outcome and arm: outcome, arm (name), n_arm, n_control, mean,
        detectable_effect (None where an arm has no unit), relative_effect (over the mean; None
        where that is 0).
    """
    means, variances = (
        numbers("outcome_means", outcome_means),
        numbers("outcome_variances", outcome_variances),
    )
    if not means.shape == variances.shape == (len(names),):
        raise DataError(
            f"{len(names)} outcome names need as many means and variances, "
            f"not {list(means.shape)} and {list(variances.shape)}."
        )
    n_control = trial.eligible[trial.arm == 0].sum(axis=0)
    report = []
    for name, mean, variance in zip(names, means.tolist(), variances.tolist()):
        effects = detectable_effect(trial.counts, n_control, variance, alpha, power)
        for arm in range(1, len(trial.arm_names)):
            effect = float(effects[arm]) if np.isfinite(effects[arm]) else None
            report.append(
                {
                    "outcome": name,
                    "arm": trial.arm_names[arm],
                    "n_arm": int(trial.counts[arm]),
                    "n_control": int(n_control[arm]),
                    "mean": mean,
                    "detectable_effect": effect,
                    "relative_effect": effect / abs(mean) if effect is not None and mean else None,
                }
            )
    return report
