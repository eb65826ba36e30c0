"""Covariates: do the arms of the trial hold the same kind of units?

Sample ratios tell that rows were lost; this tells that other rows were lost in one arm than in another,
even where the counts agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from campaigns.frame_file import FrameFile
from campaigns.spec import Campaign
from models.checks.srm import THRESHOLD, everything_open, trial_rows
from models.metrics.experiments.balance import covariate_balance

MAX_ROWS = 100_000  # a second or two
MAX_COLUMNS = 600  # times arms: the test solves a matrix of that size
MAX_LEVELS = 20  # of a categorical feature; the rest count as one


@dataclass(frozen=True)
class CovariateCheck:
    """What was found; all of it goes into JSON.

    Attributes:
        p_value: Of features at least so different in a random draw; None where it can't be told.
        differences: Greatest absolute standardized mean difference of each feature, over the arms
            (and levels) against control; features that never vary are left out.
        rows: Units compared.
        ok: The p-value is at least the threshold, or there is none.
        threshold: 0.001.
    """

    p_value: float | None
    differences: dict[str, float]
    rows: int
    ok: bool
    threshold: float = THRESHOLD

    @property
    def summary(self) -> str:
        """The finding in a sentence."""
        if self.p_value is None:
            return f"too few units of each arm ({self.rows} in all) to compare their features"
        worst = max(self.differences, key=lambda name: self.differences[name])
        found = "as a random draw leaves them" if self.ok else "more than a random draw allows"
        return (
            f"the arms' features differ {found} (p = {self.p_value:.2g}; most: {worst},"
            f" {self.differences[worst]:.3f} standard deviations)"
        )


def check_covariates(
    frame: pd.DataFrame, campaign: Campaign, features: FrameFile | None = None
) -> CovariateCheck:
    """Compare the features of the trial's arms with control's, by inverse propensity.

    Each unit counts once, with its first trial row: later ones may depend on what it got before. Where
    arms weren't open to all, only the rows that had every arm are compared.

    Args:
        frame: Decision frame with the campaign's features, unless they are read from elsewhere.
        campaign: Its features, with ``'*'`` expanded, and arms.
        features: Where the features of the rows that are compared are read, by the frame's index.

    Raises:
        DataError: No trial row, or one without a propensity.
    """
    arms = len(campaign.arm_table)
    inside, arm, p = trial_rows(frame)
    trial = frame.loc[inside].assign(arm=arm, explored_propensity=p)
    trial = trial[everything_open(arm, p, arms)]
    trial = trial.sort_values("decided_at", kind="stable").drop_duplicates("unit_id")
    if len(trial) > MAX_ROWS:
        trial = trial.iloc[np.linspace(0, len(trial) - 1, MAX_ROWS).astype(np.int64)]
    if features is not None:
        taken = features.take(trial.index.to_numpy(), campaign.features.names)
        trial = trial.join(taken)
    count = np.bincount(trial["arm"], minlength=arms)
    if count[0] < 2 or (count[1:] < 2).all():
        return CovariateCheck(None, {}, len(trial), True)
    levels = MAX_COLUMNS // ((arms - 1) * len(campaign.features.names))
    x, owner = covariate_columns(trial, campaign, max(1, min(MAX_LEVELS, levels)))
    found = covariate_balance(x, trial["arm"], propensity=trial["explored_propensity"])
    by_column = np.abs(np.where(np.isfinite(found.differences), found.differences, -1.0)).max(
        axis=0
    )
    by_column[np.isnan(found.differences).all(axis=0)] = np.nan
    differences: dict[str, float] = {}
    for name, size in zip(owner, by_column.tolist()):
        if np.isfinite(size):
            differences[name] = max(size, differences.get(name, 0.0))
    told = bool(np.isfinite(found.p_value) and differences)
    return CovariateCheck(
        p_value=found.p_value if told else None,
        differences=differences,
        rows=len(trial),
        ok=not told or found.p_value >= THRESHOLD,
    )


def covariate_columns(
    trial: pd.DataFrame, campaign: Campaign, levels: int = MAX_LEVELS
) -> tuple[np.ndarray, list[str]]:
    """A frame's features as numbers.

    Args:
        trial: The campaign's features, N rows.
        campaign: With ``'*'`` in its features expanded.
        levels: Of a categorical feature, the most frequent ones; a column each.

    Returns:
        Numbers [N, F], finite, and the feature that each column is of [F]; missing values have columns
        of their own.
    """
    columns, owner = [], []
    for name in campaign.features.numeric:
        value = trial[name].to_numpy(np.float64, na_value=np.nan)
        gone = ~np.isfinite(value)
        if gone.any():
            columns.append(gone.astype(np.float64))
            owner.append(name)
            value = np.where(gone, 0.0 if gone.all() else value[~gone].mean(), value)
        columns.append(value)
        owner.append(name)
    for name in campaign.features.categorical:
        text = trial[name].astype(str).where(trial[name].notna(), "")
        for level in text.value_counts().index[:levels]:
            columns.append((text == level).to_numpy(np.float64))
            owner.append(name)
    return np.column_stack(columns), owner
