"""What a drawn trial can see: the smallest effect of every arm on every outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.experiments.power import detectable_effect
from serving.policy.inputs import numbers
from serving.policy.trial import Trial


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
