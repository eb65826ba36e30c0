"""Every ranking metric by name, with its convention and the properties that tests hold it to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from numpy.typing import ArrayLike

from campaigns.errors import DataError, choices
from models.metrics.influence import (
    Influence,
    ate_influence,
    auuc_influence,
    lift_influence,
    qini_influence,
    rate_influence,
)
from models.metrics.rank_weighted import rate_core
from models.metrics.trial import check_trial
from models.metrics.uplift import Core, ate_core, aucc_core, auuc_core, lift_core, qini_core


@dataclass(frozen=True)
class Metric:
    """A named metric of a score against one treatment and control; higher is better.

    Attributes:
        core: the computation, vectorized over replicates of row weights.
        convention: what the number means, to print beside it.
        antisymmetric: swapping treated and control, with the scores, flips the sign.
        scale_free: multiplying the weights by a constant changes nothing.
        binary_only: outcomes must be 0 or 1.
        uses_cost: takes an observed cost.
        influence: what each row adds, where that is known; None: only the bootstrap has an interval.
    """

    name: str
    core: Core
    convention: str
    antisymmetric: bool = False
    scale_free: bool = True
    binary_only: bool = False
    uses_cost: bool = False
    influence: Influence | None = None

    def __call__(
        self,
        y_true: ArrayLike,
        score: ArrayLike,
        treatment: ArrayLike,
        *,
        propensity: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        cost: ArrayLike | None = None,
    ) -> float:
        """The metric's value; arguments as in :func:`models.metrics.auuc`."""
        trial = check_trial(
            y_true, score, treatment, propensity=propensity, weight=weight, cost=cost
        )
        return float(self.core(trial.points())[0])


def _named(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS: dict[str, Metric] = _named(
    Metric(
        "ate",
        ate_core,
        "mean treated - mean control",
        antisymmetric=True,
        influence=ate_influence,
    ),
    Metric(
        "auuc",
        auuc_core,
        "area under the uplift curve, per capita",
        antisymmetric=True,
        influence=auuc_influence,
    ),
    Metric(
        "auuc_perfect",
        partial(auuc_core, normalize="perfect"),
        "area over random / perfect area over random (scikit-uplift)",
        binary_only=True,
    ),
    Metric(
        "auuc_final",
        partial(auuc_core, normalize="final"),
        "area under the uplift curve / |its end| (nearly causalml's)",
        antisymmetric=True,
    ),
    Metric(
        "qini",
        qini_core,
        "area over random, in outcomes among the treated",
        scale_free=False,
        influence=qini_influence,
    ),
    Metric(
        "qini_perfect",
        partial(qini_core, normalize="perfect"),
        "area over random / perfect area over random (scikit-uplift)",
    ),
    Metric(
        "qini_perfect_positive",
        partial(qini_core, normalize="perfect", negative_effect=False),
        "as qini_perfect, with a perfect curve without harm (negative_effect=False)",
        binary_only=True,
    ),
    Metric(
        "qini_final",
        partial(qini_core, normalize="final"),
        "area over random / |end of the Qini curve| (nearly causalml's)",
    ),
    Metric(
        "autoc",
        rate_core,
        "integral of the effect among the top q over the ATE (RATE, Yadlowsky et al.)",
        antisymmetric=True,
        influence=rate_influence,
    ),
    Metric(
        "rate_qini",
        partial(rate_core, weighting="qini"),
        "the same, weighted by q",
        antisymmetric=True,
        influence=partial(rate_influence, weighting="qini"),
    ),
    Metric(
        "aucc",
        aucc_core,
        "area under value by cost, both scaled to end at 1",
        uses_cost=True,
    ),
)


def get_metric(name: str) -> Metric:
    """The metric of that name: one of ``METRICS``, or ``lift@30``, ``lift@30_by_group`` and so on.

    Raises:
        DataError: no such metric; the message lists those that exist.
    """
    if name in METRICS:
        return METRICS[name]
    found = re.fullmatch(r"lift@(\d{1,3}(?:\.\d+)?)(_by_group)?", name)
    if found is None or not 0 < float(found[1]) <= 100:
        raise DataError(
            f"metrics: there is no metric '{name}'; use {choices(METRICS)}, or LIFT at a depth"
            " in percent such as 'lift@30' or 'lift@30_by_group'."
        )
    by_group = found[2] is not None
    return Metric(
        name,
        partial(lift_core, h=float(found[1]) / 100, by_group=by_group),
        f"mean treated - mean control in the top {found[1]}% of {'each group' if by_group else 'all'}",
        antisymmetric=True,
        influence=None if by_group else partial(lift_influence, h=float(found[1]) / 100),
    )


def evaluate(
    metrics: Sequence[str],
    y_true: ArrayLike,
    score: ArrayLike,
    treatment: ArrayLike,
    *,
    propensity: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    cost: ArrayLike | None = None,
) -> dict[str, float]:
    """Several metrics of one score, which is sorted once; arguments as in ``auuc`` and ``aucc``."""
    wanted = [get_metric(name) for name in metrics]
    points = check_trial(
        y_true, score, treatment, propensity=propensity, weight=weight, cost=cost
    ).points()
    return {metric.name: float(metric.core(points)[0]) for metric in wanted}
