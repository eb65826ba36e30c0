"""The next epoch's trial: who takes part, and which arm each of them gets, within a budget.

Units join in the order of their exploration coin (the draw that `explore` uses), outside the
holdout. Within each group (stratum x set of eligible arms) arms are dealt in permuted blocks to
units in a random order: arms are balanced to within one unit a group, and every unit's probability
of each of its eligible arms is exactly one over their number (Rosenberger & Lachin 2016,
"Randomization in Clinical Trials", chapter 3). Who joins never depends on which arm they would get.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from campaigns.arms import ArmTable
from campaigns.errors import DataError
from serving.policy.allocation import ROUNDING
from serving.policy.blocks import Groups
from serving.policy.exploration import held_out
from serving.policy.hashing import ARM, COIN, Units, uniform
from serving.policy.inputs import (
    Bools,
    Floats,
    Ints,
    amount,
    cost_matrix,
    eligible_matrix,
    same_length,
    share,
)


@dataclass(frozen=True, eq=False)
class Trial:
    """The units of a trial, n of them, in the order of the unit table.

    Attributes:
        unit_id: [n].
        row: Their rows in the unit table, [n].
        arm: [n] int64.
        explored_propensity: Probability of that arm: one over the number of eligible arms, [n].
        eligible: The arms each could have got, [n, A] bool.
        stratum: Their strata, [n], or None.
        arm_names: Names of the arms, [A].
        epoch: The epoch that the trial is for.
        spend: What the arms cost, never above the budget.
        expected_spend: What they cost on average over the randomisation.
        candidates: Units that could take part: not held out, with more than one eligible arm.
        asked: Units asked for.
        got: Units in the trial: n. Less than asked where there are too few, or the budget is short.
    """

    unit_id: NDArray[Any]
    row: Ints
    arm: Ints
    explored_propensity: Floats
    eligible: Bools
    stratum: NDArray[Any] | None
    arm_names: tuple[str, ...]
    epoch: str
    spend: float
    expected_spend: float
    candidates: int
    asked: int
    got: int

    @property
    def share_asked(self) -> float:
        """Units asked for, as a share of the candidates."""
        return self.asked / self.candidates if self.candidates else 0.0

    @property
    def share_got(self) -> float:
        """Units in the trial, as a share of the candidates."""
        return self.got / self.candidates if self.candidates else 0.0

    @property
    def counts(self) -> Ints:
        """Units in each arm, [A]."""
        return np.bincount(self.arm, minlength=len(self.arm_names))

    def columns(self) -> dict[str, NDArray[Any]]:
        """The trial as named columns of a table."""
        table: dict[str, NDArray[Any]] = {
            "unit_id": self.unit_id,
            "arm": self.arm,
            "arm_name": np.array(self.arm_names, dtype=object)[self.arm],
            "explored_propensity": self.explored_propensity,
            "epoch": np.full(self.got, self.epoch, dtype=object),
        }
        return table if self.stratum is None else table | {"stratum": self.stratum}


def sample_trial(
    unit_ids: Units,
    arm_table: ArmTable,
    *,
    budget: float,
    epsilon: float | None = None,
    size: int | None = None,
    epoch: str | int,
    salt: str,
    strata: Sequence[Any] | NDArray[Any] | None = None,
    eligible: ArrayLike | None = None,
    holdout: float = 0.0,
) -> Trial:
    """Draw a randomised trial, uniform over the eligible arms, that the budget pays for.

    Where the budget is short the trial shrinks, to its first units by coin. It is sized for the
    dearest deal of each group's last, partial block, so with many tiny groups it can stay
    somewhat below the budget.

    Args:
        unit_ids: The unit table's ids, [N], each once.
        arm_table: The arms and their unit costs (not negative; control costs 0).
        budget: Most that the trial may cost, >= 0; infinity for no limit.
        epsilon: Probability that a unit takes part; or
        size: the number of units that do. Exactly one of the two.
        epoch: The epoch that the trial is for; another epoch draws anew.
        salt: Key of the draws.
        strata: Label of each unit's stratum, [N]: arms are balanced within each.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed. Units that
            may only get control are left out: they would teach nothing.
        holdout: Share of units that are never treated; they take no part.

    Raises:
        DataError: A unit twice, both or neither of epsilon and size, a wrong shape or number.
    """
    count, arms = len(unit_ids), len(arm_table)
    ids = _distinct(unit_ids)
    costs = cost_matrix(arm_table.costs, (1, arms))[0]
    if (costs < 0).any():
        raise DataError(f"A trial needs arms with costs that are not negative, not {costs.min()}.")
    limit = amount("budget", budget)
    allowed = eligible_matrix(eligible, (count, arms))
    labels = _labels(strata, count)

    coin = uniform(unit_ids, salt=salt, epoch=epoch, purpose=COIN)
    joins = (allowed.sum(axis=1) > 1) & ~held_out(unit_ids, salt=salt, holdout=holdout)
    candidates = np.flatnonzero(joins)
    candidates = candidates[np.argsort(coin[candidates], kind="stable")]
    asked = _asked(coin[candidates], epsilon, size)
    queue = candidates[:asked]

    groups = Groups.of(labels[queue], allowed[queue])
    got = groups.affordable(costs, limit * (1 + ROUNDING))
    rows = queue[:got]
    lot = uniform(ids[rows], salt=salt, epoch=epoch, purpose=ARM)
    arm = groups.deal(lot, salt=salt, epoch=epoch)

    back = np.argsort(rows)
    rows, arm = rows[back], arm[back]
    offered = allowed[rows]
    chances = 1.0 / offered.sum(axis=1)
    return Trial(
        unit_id=ids[rows],
        row=rows,
        arm=arm,
        explored_propensity=chances,
        eligible=offered,
        stratum=None if strata is None else np.asarray(strata)[rows],
        arm_names=tuple(arm_table.names),
        epoch=str(epoch),
        spend=min(float(costs[arm].sum()), limit),
        expected_spend=min(float(((offered @ costs) * chances).sum()), limit),
        candidates=len(candidates),
        asked=asked if size is None else size,
        got=got,
    )


def _distinct(unit_ids: Units) -> NDArray[Any]:
    listed = unit_ids.tolist() if isinstance(unit_ids, np.ndarray) else list(unit_ids)
    seen = Counter(map(str, listed))
    if len(seen) < len(listed):
        unit, times = seen.most_common(1)[0]
        raise DataError(
            f"A trial needs each unit once, but the table has unit {unit!r} {times} times."
        )
    ids = np.empty(len(listed), dtype=object)
    ids[:] = listed
    return ids


def _labels(strata: Sequence[Any] | NDArray[Any] | None, count: int) -> NDArray[Any]:
    if strata is None:
        return np.zeros(count, dtype=np.int64)
    same_length("strata", strata, count)
    return np.asarray(strata)


def _asked(coin: Floats, epsilon: float | None, size: int | None) -> int:
    """How many of the candidates, whose coins are sorted, are asked to take part."""
    if (epsilon is None) == (size is None):
        raise DataError("A trial needs either epsilon or size, and not both.")
    if epsilon is not None:
        return int(np.searchsorted(coin, share("epsilon", epsilon)))
    if not isinstance(size, int | np.integer) or size < 0:
        raise DataError(f"size must be a whole number that is not negative, not {size!r}.")
    return min(int(size), len(coin))
