"""Permuted blocks: arms dealt evenly to the units of each group of a trial."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.policy.hashing import BLOCK, uniform
from serving.policy.inputs import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of units that are randomised among themselves.

    Attributes:
        allowed: The arms of each group, [G, A] bool.
        names: A name for each that doesn't depend on the order of the rows, [G].
        of_unit: The group of each unit, [n].
    """

    allowed: Bools
    names: list[str]
    of_unit: Ints

    @classmethod
    def of(cls, labels: NDArray[Any], allowed: Bools) -> Groups:
        """One group for each stratum (label, [n]) and set of eligible arms ([n, A] bool)."""
        sets = np.packbits(allowed, axis=1)
        keys = [f"{label}|{bits.tobytes().hex()}" for label, bits in zip(labels.tolist(), sets)]
        names, first, of_unit = np.unique(
            np.array(keys, dtype=object), return_index=True, return_inverse=True
        )
        return cls(allowed[first], names.tolist(), of_unit)

    def affordable(self, costs: Floats, budget: float) -> int:
        """How many units, from the first, the budget pays for, however their arms are dealt.

        Whole blocks cost what they cost; a last, partial block counts with its dearest arms.
        """
        dearest_first = -np.sort(-np.where(self.allowed, costs, 0.0), axis=1)
        up_to = np.pad(dearest_first.cumsum(axis=1), ((0, 0), (1, 0)))
        block = self.allowed.sum(axis=1)

        def most(units: int) -> float:
            size = np.bincount(self.of_unit[:units], minlength=len(block))
            whole, rest = np.divmod(size, block)
            return float((whole * up_to[:, -1] + up_to[np.arange(len(block)), rest]).sum())

        return bisect_right(range(1, len(self.of_unit) + 1), budget, key=most)

    def deal(self, lot: Floats, *, salt: str, epoch: str | int) -> Ints:
        """The arm of each of the first n units, [n], dealt in the order of their lots, [n].

        Within a group every arm comes up once a block. The order in which a group's arms are
        dealt is drawn too, so a unit of a partial block is as likely to get any of them.
        """
        count, arms = self.allowed.shape
        cards = [f"{name}|{arm}" for name in self.names for arm in range(arms)]
        shuffle = uniform(cards, salt=salt, epoch=epoch, purpose=BLOCK).reshape(count, arms)
        deck = np.where(self.allowed, shuffle, np.inf).argsort(axis=1)

        group = self.of_unit[: len(lot)]
        order = np.lexsort((lot, group))
        begin = np.searchsorted(group[order], np.arange(count))
        place = np.arange(len(lot)) - begin[group[order]]
        arm = np.empty(len(lot), dtype=np.int64)
        arm[order] = deck[group[order], place % self.allowed.sum(axis=1)[group[order]]]
        return arm
