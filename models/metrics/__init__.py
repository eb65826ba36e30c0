"""Metrics of uplift: curves, ranking metrics, intervals, off-policy values and errors of effects.

Small stateless functions of arrays, ``f(y_true, score, treatment, *, propensity, weight)``. Every
metric is the same for every order of the rows (ties are merged), and bad input is a ``DataError``.
"""

from models.metrics.bootstrap import metric_difference, metric_interval, metric_intervals
from models.metrics.conventions import CONVENTIONS, in_convention
from models.metrics.curves import Curve, cost_curve, qini_curve, uplift_curve
from models.metrics.effects import ate_error, ate_pearson, footrule, pehe, tau_mae
from models.metrics.intervals import (
    Interval,
    bootstrap_draws,
    normal_interval,
    percentile_interval,
)
from models.metrics.ope import PolicyValue, policy_difference, policy_value
from models.metrics.outcome_model import cross_fit_outcome_model
from models.metrics.policy_curve import (
    PolicyCurve,
    greedy_path,
    mcmv_aucc,
    policy_curve,
    policy_values,
)
from models.metrics.rank_weighted import rate, rate_difference, toc_curve
from models.metrics.registry import METRICS, Metric, evaluate, get_metric
from models.metrics.sensitivity import (
    EffectBounds,
    EValue,
    Sensitivity,
    e_value,
    effect_bounds,
    sensitivity,
)
from models.metrics.table import DEFAULT_METRICS, UpliftRow, uplift_table
from models.metrics.uplift import ate, aucc, auuc, lift_at, qini
from models.metrics.uplift_calibration import (
    IsotonicUplift,
    pseudo_effects,
    uplift_calibration_error,
)

__all__ = [
    "CONVENTIONS",
    "DEFAULT_METRICS",
    "METRICS",
    "Curve",
    "EValue",
    "EffectBounds",
    "Interval",
    "IsotonicUplift",
    "Metric",
    "PolicyCurve",
    "PolicyValue",
    "Sensitivity",
    "UpliftRow",
    "ate",
    "ate_error",
    "ate_pearson",
    "aucc",
    "auuc",
    "bootstrap_draws",
    "cost_curve",
    "cross_fit_outcome_model",
    "e_value",
    "effect_bounds",
    "evaluate",
    "footrule",
    "get_metric",
    "greedy_path",
    "in_convention",
    "lift_at",
    "mcmv_aucc",
    "metric_difference",
    "metric_interval",
    "metric_intervals",
    "normal_interval",
    "pehe",
    "percentile_interval",
    "policy_curve",
    "policy_difference",
    "policy_value",
    "policy_values",
    "pseudo_effects",
    "qini",
    "qini_curve",
    "rate",
    "rate_difference",
    "sensitivity",
    "tau_mae",
    "toc_curve",
    "uplift_calibration_error",
    "uplift_curve",
    "uplift_table",
]
