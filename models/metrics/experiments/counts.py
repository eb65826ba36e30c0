"""Sample ratio for people who look again and again: a p-value that stays valid at every look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from models.metrics.checks import Array, Index, arm_indices, numbers

_RARE = 1e-3  # least probability that the prior gives an arm: it may become likelier later on


@dataclass(frozen=True)
class SequentialCounts:
    """Did the arms come as designed, judged after every row.

    Attributes:
        p_values: after each row [N]: were the design kept, some of them would ever fall to u or
            below with probability at most u. They never rise.
    """

    p_values: Array

    @property
    def p_value(self) -> float:
        """After the last row."""
        return float(self.p_values[-1])

    def first_below(self, level: float) -> int | None:
        """The row (from 0) at which the p-value fell below ``level``; None: it never did."""
        below = self.p_values < level
        return int(below.argmax()) if below.any() else None


def sequential_counts(
    arm: ArrayLike, probability: ArrayLike, *, concentration: float = 100.0
) -> SequentialCounts:
    """Test that arms were drawn with the probabilities of the design, row after row.

    The wealth of somebody who bets against the design is a martingale under it, so that Ville's
    inequality makes 1 / (its greatest value so far) a p-value at every row:

        wealth_n = product over rows t of  w(a_t) / sum_a p_t(a) w(a),
        w(a) = (c p_1(a) + count of a before t) / (c p_1(a) + sum of p_s(a) before t)

    With constant probabilities this is the Bayes factor of a Dirichlet(c p) against the multinomial
    of the design. Great c finds small mismatches in large trials, small c large ones at once.

    Args:
        arm: arm given, in the order of arrival [N].
        probability: of every arm [A], or of every arm in each row [N, A] where they change.
        concentration: c, above 0; to be chosen before looking.

    Source: Lindon & Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022;
    Ville 1939. Their c is 100.

    >>> test = sequential_counts([0, 1] * 500 + [1] * 150, [0.5, 0.5])
    >>> float(test.p_values[999]), test.first_below(0.001)
    (1.0, 1142)
    """
    given = arm_indices("arm", arm, None)
    rows = len(given)
    changes = np.ndim(probability) == 2
    chance = numbers("probability", probability, (rows, None) if changes else (None,))
    chance = np.atleast_2d(chance)
    if chance.min() < 0 or np.abs(chance.sum(axis=1) - 1).max() > 1e-6:
        raise DataError(
            f"metrics: probability has rows that sum to {chance.sum(axis=1).min():g} .."
            f" {chance.sum(axis=1).max():g} and goes down to {chance.min():g}; each row holds the"
            " probabilities of all arms, which are at least 0 and sum to 1."
        )
    if given.max() >= chance.shape[1]:
        raise DataError(
            f"metrics: probability is of {chance.shape[1]} arms, and arm {given.max()} was given."
        )
    if not concentration > 0:
        raise DataError(f"metrics: concentration={concentration:g}; it must be above 0.")
    wealth = np.cumsum(_log_gains(given, chance, concentration))
    return SequentialCounts(np.exp(-np.maximum(np.maximum.accumulate(wealth), 0.0)))


def _log_gains(arm: Index, chance: Array, concentration: float) -> Array:
    """log of what each row multiplies the wealth by [N]; infinite where an arm had no chance."""
    rows, arms = len(arm), chance.shape[1]
    prior = concentration * np.maximum(chance[0], _RARE)
    pool, came = np.zeros(rows), np.empty(rows)
    for a in range(arms):  # one arm at a time: no [N, A] where the design is constant
        p = np.broadcast_to(chance[:, a], rows)
        hit = arm == a
        w = (prior[a] + np.cumsum(hit) - hit) / (prior[a] + np.cumsum(p) - p)
        pool += p * w
        came[hit] = np.where(p > 0, w, np.inf)[hit]
    with np.errstate(divide="ignore"):
        return np.log(came / pool)
