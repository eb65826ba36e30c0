"""What an experiment could see, from the log of before: the least effect, or the units that one needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from campaigns.errors import DataError
from campaigns.experiment import Experiment
from campaigns.objective import realised
from campaigns.spec import Campaign
from models.checks.covariates import covariate_columns
from models.metrics.experiments import detectable_effect, needed_rows
from models.readout import NET_VALUE

MOST_ROWS = 100_000  # that variances are estimated from
LEAST_ROWS = 50


@dataclass(frozen=True)
class PlannedEffect:
    """What a variant and an outcome could show against the reference.

    Attributes:
        mean: Of the outcome in the log, a decision.
        units: Of the variant.
        detectable: The least difference of the means that is found, adjusted for the features.
        unadjusted: The same without.
        relative: ``detectable`` over the size of the mean; None where that is 0.
        needed: Units of the whole experiment that find the effect asked for; None: none was asked for.
    """

    outcome: str
    variant: str
    mean: float
    units: int
    detectable: float
    unadjusted: float
    relative: float | None
    needed: float | None


def plan_experiment(
    frame: pd.DataFrame,
    experiment: Experiment,
    campaign: Campaign,
    *,
    units: int,
    effect: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> list[PlannedEffect]:
    """The least effect that each variant shows with ``units`` units, one decision each.

    An outcome varies as it did in the log, and features explain as much of it as there.

    Args:
        frame: A decision frame of before.
        experiment: Shares and reference.
        campaign: With features spelled out.
        units: Of all variants together.
        effect: A difference in shares of the mean (0.02: 2%) for which units are asked; None: none.
        power: Probability of finding an effect, in (0, 1).
        alpha: Level of the two-sided test, in (0, 1).

    Raises:
        DataError: There are too few rows to go by, or a number is out of range.
    """
    rows = frame[~frame["holdout"].to_numpy(bool)]
    outcomes = rows[list(campaign.outcomes)].to_numpy(dtype=np.float64)
    worth, paid = realised(outcomes, rows["arm"].to_numpy(), campaign)
    net = worth - campaign.budget.min_return * paid
    series = dict(zip(campaign.outcomes, outcomes.T)) | {NET_VALUE: net}
    shares = dict(zip(experiment.names, experiment.shares.tolist()))
    base, planned = shares[experiment.reference], []
    for name, values in series.items():
        mean, variance, left = _spread(name, rows, values, campaign)
        for variant, share in shares.items():
            if variant == experiment.reference:
                continue
            sizes = units * share, units * base
            adjusted = float(detectable_effect(*sizes, left, alpha=alpha, power=power))
            planned.append(
                PlannedEffect(
                    outcome=name,
                    variant=variant,
                    mean=mean,
                    units=round(units * share),
                    detectable=adjusted,
                    unadjusted=float(detectable_effect(*sizes, variance, alpha=alpha, power=power)),
                    relative=adjusted / abs(mean) if mean else None,
                    needed=None
                    if effect is None
                    else _needed(effect * mean, left, share, base, alpha, power),
                )
            )
    return planned


def _needed(
    effect: float, variance: float, share: float, base: float, alpha: float, power: float
) -> float:
    pair = share + base
    rows = needed_rows(effect, variance, share=share / pair, alpha=alpha, power=power)
    return float(np.ceil(rows / pair))


def _spread(
    name: str, rows: pd.DataFrame, values: np.ndarray, campaign: Campaign
) -> tuple[float, float, float]:
    """Mean, variance, and what the features leave of it."""
    seen = np.flatnonzero(np.isfinite(values))
    if len(seen) < LEAST_ROWS:
        raise DataError(
            f"{campaign.name}: {len(seen)} decisions of the log have {name!r}; a plan needs at least "
            f"{LEAST_ROWS} to go by"
        )
    if len(seen) > MOST_ROWS:
        seen = seen[np.linspace(0, len(seen) - 1, MOST_ROWS).astype(np.int64)]
    y, (x, _) = values[seen], covariate_columns(rows.iloc[seen], campaign)
    design = np.column_stack([np.ones(len(y)), x])
    slopes, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    variance = float(y.var(ddof=1))
    if len(y) <= 2 * rank:
        return float(y.mean()), variance, variance
    left = float(((y - design @ slopes) ** 2).sum() / (len(y) - rank))
    return float(y.mean()), variance, min(left, variance)
