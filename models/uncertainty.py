"""How sure a model is of its uplifts: the spread of those who answer together, as intervals.

A model's answer is the weighted mean of its parts (a net, and the trees beside it), a part's the mean of
its members (nets of an ensemble, bags of trees, draws of a posterior). With s_p^2 the members' variance
in part p and g^2 the variance of the parts' means, both weighted likewise, an interval is

    mean +- t * sqrt(mean_p s_p^2 + g^2),

t being Student's quantile with as many degrees of freedom as there are members beyond the first of
their part. The first term is how far another sample of units (``bootstrap``, bags) or other first
weights would have moved an answer, the second how far models of two kinds disagree. What all get wrong
alike it doesn't know; ``docs/models.md`` says how often it held the truth where that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import stats

from campaigns.objective import value_and_cost
from campaigns.spec import Campaign

CONFIDENCE = 0.9


@dataclass(frozen=True)
class Intervals:
    """Where uplifts over control lie; control's own are 0.

    Attributes:
        lower, upper: Of each arm and outcome, in the outcome's units, [N, A, K].
        value_lower, value_upper: Of each arm's value, what decisions are made by, [N, A].
    """

    lower: np.ndarray
    upper: np.ndarray
    value_lower: np.ndarray
    value_upper: np.ndarray

    @classmethod
    def of(
        cls,
        parts: Sequence[np.ndarray],
        weights: Sequence[float],
        campaign: Campaign,
        confidence: float = CONFIDENCE,
    ) -> Self:
        """From the outcomes that the members of each part expect.

        Args:
            parts: [M, N, A, K] each, in the outcomes' own units; one of them with M >= 2.
            weights: Of the parts; they sum to 1.
            campaign: Gives the outcomes' values.
            confidence: Of the intervals, in (0, 1).
        """
        uplifts = [part - part[:, :, :1] for part in parts]
        values = [np.stack([value_and_cost(each, campaign)[0] for each in part]) for part in parts]
        return cls(
            *_interval(uplifts, weights, confidence), *_interval(values, weights, confidence)
        )

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """One after the other."""
        names = ("lower", "upper", "value_lower", "value_upper")
        return cls(*(np.concatenate([getattr(each, name) for each in several]) for name in names))


def _interval(
    parts: Sequence[np.ndarray], weights: Sequence[float], confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends, [...], of what the members of each part say, [M, ...]."""
    means = np.stack([part.mean(0) for part in parts])
    middle = np.average(means, axis=0, weights=weights)
    between = np.average((means - middle) ** 2, axis=0, weights=weights)
    told = [(part.var(0, ddof=1), weight) for part, weight in zip(parts, weights) if len(part) > 1]
    within = np.average([each for each, _ in told], axis=0, weights=[weight for _, weight in told])
    freedom = sum(len(part) - 1 for part in parts)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(within + between)
    return middle - half, middle + half
