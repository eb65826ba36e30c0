"""Read-outs of randomized experiments: how large, how sure, how soon, and was it a sound trial at all.

Small functions of arrays, like all of :mod:`models.metrics`; the arm's propensity is known, not fitted.
"""

from models.metrics.experiments.balance import Balance, covariate_balance
from models.metrics.experiments.counts import SequentialCounts, sequential_counts
from models.metrics.experiments.cuped import AdjustedEffect, cuped_effect
from models.metrics.experiments.novelty import EffectOverTime, effect_over_time
from models.metrics.experiments.power import (
    achieved_power,
    binary_variance,
    detectable_effect,
    needed_rows,
)
from models.metrics.experiments.readout import VariantEffect, compare_variants
from models.metrics.experiments.sequential import (
    ConfidenceSequence,
    effect_sequence,
    mean_sequence,
)

__all__ = [
    "AdjustedEffect",
    "Balance",
    "ConfidenceSequence",
    "EffectOverTime",
    "SequentialCounts",
    "VariantEffect",
    "achieved_power",
    "binary_variance",
    "compare_variants",
    "covariate_balance",
    "cuped_effect",
    "detectable_effect",
    "effect_over_time",
    "effect_sequence",
    "mean_sequence",
    "needed_rows",
    "sequential_counts",
]
