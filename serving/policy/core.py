"""The core: the units that are nearly indifferent, decided on together and exactly.

All others keep the arms that prices give them; the core's arms solve a linear programme over what the
limits leave to it (the core of a knapsack: Balas & Zemel 1980, Operations Research 28(5)). It mends
what lots and ties did to the limits, and uses what they left. Units with the same numbers are counted,
not listed, so ties cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from serving.policy.dual import scores
from serving.policy.inputs import Bools, Floats, Ints
from serving.policy.lots import lots
from serving.policy.portions import Columns, Grid, Portion, columns

NODES = 200
TRIES = 6
TOGETHER = 6  # split units whose arms are tried out together
WHOLE = 1e-7  # a fraction this close to a whole number is one


@dataclass(frozen=True, eq=False)
class Core:
    """Units in the order of what they lose by their second-best arm.

    Attributes:
        unit: Their ids, [k].
        key: Loss and lot, by which they are ordered, [k, 2].
        net: [k, A].
        uses: [m, k, A].
        allowed: [k, A].
    """

    unit: NDArray[Any]
    key: Floats
    net: Floats
    uses: Floats
    allowed: Bools

    def joined(self, other: Core, most: int) -> Core:
        """The first of both, at most so many."""
        key = np.concatenate([self.key, other.key])
        first = np.lexsort((key[:, 1], key[:, 0]))[:most]
        return Core(
            np.concatenate([self.unit, other.unit])[first],
            key[first],
            np.concatenate([self.net, other.net])[first],
            np.concatenate([self.uses, other.uses], axis=1)[:, first],
            np.concatenate([self.allowed, other.allowed])[first],
        )

    def table(self) -> Columns:
        """The units as a table."""
        return Columns(
            list(self.net.T), [list(use.T) for use in self.uses], list(self.allowed.T), self.unit
        )


def nearest(portion: Portion, grid: Grid, prices: Floats, most: int) -> Core:
    """The units of a portion that lose least by their second-best arm at these prices."""
    table = columns(portion, grid)
    score = np.stack([scores(table, prices, arm) for arm in range(grid.arms)], axis=1)
    if grid.arms == 1:
        loss = np.full(len(table), np.inf)
    else:
        second, first = np.partition(score, grid.arms - 2, axis=1)[:, -2:].T
        loss = first - second
    open_to_choice = np.flatnonzero(np.isfinite(loss))
    if len(open_to_choice) > most:
        limit = np.partition(loss[open_to_choice], most - 1)[most - 1]
        open_to_choice = open_to_choice[loss[open_to_choice] <= limit]
    key = np.stack([loss[open_to_choice], lots(table.unit[open_to_choice])], axis=1)
    return _units(table, open_to_choice, key, most)


def sample(portion: Portion, grid: Grid, most: int) -> Core:
    """The units of a portion that have the lowest lots."""
    table = columns(portion, grid)
    lot = lots(table.unit).astype(np.float64)
    rows = np.arange(len(lot))
    if len(lot) > most:
        rows = np.argpartition(lot, most - 1)[:most]
    return _units(table, rows, np.stack([np.zeros(len(rows)), lot[rows]], axis=1), most)


def _units(table: Columns, rows: Ints, key: Floats, most: int) -> Core:
    """These rows in the order of their keys, at most so many."""
    first = np.lexsort((key[:, 1], key[:, 0]))[:most]
    rows = rows[first]
    shape = (len(table.uses), len(rows), len(table.net))
    allowed = np.ones(shape[1:], dtype=bool)
    if table.allowed is not None:
        allowed = _rows(table.allowed, rows).astype(bool)
    return Core(
        table.unit[rows],
        key[first],
        _rows(table.net, rows),
        np.array([_rows(use, rows) for use in table.uses]).reshape(shape),
        allowed,
    )


def settle(core: Core, room: Floats) -> tuple[Ints | None, float]:
    """The core's arms, [k], with uses of at most `room` [m], and the value that fractions would have.

    A linear programme leaves at most m kinds of units split between arms; whole arms for these are
    tried out, then every unit is moved up while it fits. Where none fits, the room is made smaller by
    what is missing; as a last resort an integer programme says whether there is any way (None: no).

    Args:
        core: The units.
        room: What the limits leave to them.
    """
    _, first, member, count = np.unique(
        np.concatenate([core.net, *core.uses, core.allowed], axis=1),
        axis=0,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    problem = _Kinds(core.net[first], core.uses[:, first], core.allowed[first], count)
    given, bound = _rounded(problem, room)
    if given is None:
        given = problem.integers(room)
    if given is None:
        return None, bound
    arm = _dealt(given, member)
    _fill(core, arm, room)
    return arm, max(bound, float((given * problem.net).sum()))


def _rounded(problem: _Kinds, room: Floats) -> tuple[Ints | None, float]:
    """Whole numbers near the best fractions, None where none fit; the value of the fractions."""
    bound, smaller = -np.inf, np.zeros(len(room))
    for _ in range(TRIES):
        fractions = problem.fractions(room - smaller)
        if fractions is None:
            break
        bound = max(bound, float((fractions * problem.net).sum()))
        given, missing = problem.whole(fractions, room)
        if not missing.any():
            return given, bound
        smaller += missing
    return None, bound


@dataclass(frozen=True, eq=False)
class _Kinds:
    """Units with the same numbers, counted: net [k, A], uses [m, k, A], allowed [k, A], count [k]."""

    net: Floats
    uses: Floats
    allowed: Bools
    count: Ints

    def fractions(self, room: Floats) -> Floats | None:
        """How many of each kind get each arm, [k, A], where units can be split; None: no way."""
        rows, size, one_each = self._rows()
        found = linprog(
            -self.net.ravel(),
            A_ub=rows if len(rows) else None,
            b_ub=room / size if len(rows) else None,
            A_eq=one_each,
            b_eq=self.count,
            bounds=np.c_[np.zeros(self.net.size), self._most()],
            method="highs-ds",
        )
        return found.x.reshape(self.net.shape) if found.status == 0 else None

    def integers(self, room: Floats) -> Ints | None:
        """Any whole numbers [k, A] within the room that are worth much; None where none were found."""
        rows, size, one_each = self._rows()
        found = milp(
            -self.net.ravel(),
            integrality=np.ones(self.net.size),
            bounds=Bounds(0, self._most()),
            constraints=[
                LinearConstraint(one_each, self.count, self.count),
                LinearConstraint(rows, ub=room / size),
            ],
            options={"mip_rel_gap": 0.01, "node_limit": NODES},
        )
        if found.x is None:
            return None
        given = np.rint(found.x).reshape(self.net.shape).astype(np.int64)
        return None if (self._used(given) > room).any() else given

    def whole(self, fractions: Floats, room: Floats) -> tuple[Ints, Floats]:
        """Whole numbers [k, A] near the fractions, and by how much they pass the room, [m]."""
        given = np.floor(fractions + WHOLE).astype(np.int64)
        split = np.repeat(np.arange(len(given)), self.count - given.sum(axis=1))
        for batch in range(0, len(split), TOGETHER):
            some = split[batch : batch + TOGETHER]
            ways = np.array(list(product(*(np.flatnonzero(self.allowed[kind]) for kind in some))))
            value = self.net[some, ways].sum(axis=1)
            over = self.uses[:, some, ways].sum(axis=2) + self._used(given)[:, None]
            over = np.maximum(over - room[:, None], 0.0)
            _, size, _ = self._rows()
            way = ways[np.lexsort((-value, (over / size[:, None]).sum(axis=0)))[0]]
            np.add.at(given, (some, way), 1)
        return given, np.maximum(self._used(given) - room, 0.0)

    def _used(self, given: Ints) -> Floats:
        return (self.uses * given).sum(axis=(1, 2))

    def _most(self) -> Floats:
        return np.where(self.allowed, self.count[:, None], 0).ravel().astype(np.float64)

    def _rows(self) -> tuple[Floats, Floats, sparse.csr_array]:
        """The limits' coefficients, scaled by their size, and the sum over arms of each kind."""
        size = np.abs(self.uses).max(axis=(1, 2), initial=0.0)
        size[size == 0] = 1.0
        rows = self.uses.reshape(len(size), -1) / size[:, None]
        each = sparse.kron(sparse.eye(len(self.net)), np.ones((1, self.net.shape[1])))
        return rows, size, sparse.csr_array(each)


def _fill(core: Core, arm: Ints, room: Floats) -> None:
    """Move units, the greatest gain first, while it stays within the room; changes `arm`."""
    rows = np.arange(len(arm))
    left = room - core.uses[:, rows, arm].sum(axis=1)
    for _ in range(len(arm)):
        gain = np.where(core.allowed, core.net - core.net[rows, arm][:, None], 0.0)
        more = core.uses - core.uses[:, rows, arm][:, :, None]
        gain[(more > np.maximum(left, 0.0)[:, None, None]).any(axis=0)] = 0.0
        unit, target = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[unit, target] <= 0:
            return
        left -= more[:, unit, target]
        arm[unit] = target


def _dealt(given: Ints, member: Ints) -> Ints:
    """How many of each kind get an arm, [kinds, A], as an arm for each unit."""
    arm = np.empty(member.size, dtype=np.int64)
    order = np.argsort(member.ravel(), kind="stable")
    arm[order] = np.repeat(np.tile(np.arange(given.shape[1]), len(given)), given.ravel())
    return arm


def _rows(one_an_arm: list[Any], rows: Ints) -> Floats:
    every = [np.broadcast_to(arm, ()) if np.ndim(arm) == 0 else arm[rows] for arm in one_an_arm]
    return np.stack([np.broadcast_to(arm, len(rows)) for arm in every], axis=1)
