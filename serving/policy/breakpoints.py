"""One limit, solved by histograms of breakpoints: the price to the last digit in a few passes.

As the price falls, a unit climbs the upper hull of its (use, value) points one step at a time, each at
the price equal to the step's slope (`knapsack`). A histogram of the steps' uses by slope says in which
bin the limit is reached; the next pass splits that bin. Bins are cut from the bits of the slope, which
for positive numbers have their order, so a pass adds 15 or 16 bits (a radix selection). Only
histograms travel, and their sums are exact: any number of portions, anywhere, give one answer.

Units in the last bin differ in price by less than it is wide, or are indifferent. They are split by
their lots, by the same histograms, as far as the limit goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from serving.policy.inputs import Floats, Ints
from serving.policy.knapsack import STEEPEST
from serving.policy.lots import BITS, lots
from serving.policy.portions import Columns, Grid, Portion, Source, columns

BINS_BITS = 16
SLOPE_BITS = 63
NEAR_BITS = 49  # of the keys around a price that is nearly known: 6 to 12% to either side
NEGLIGIBLE = 1e-7  # of the value of the whole limit, that splitting bins further could bring
FINE = 0.005  # one histogram of lots is enough, but for small tables: whole units are left then


@dataclass(frozen=True)
class Bin:
    """Keys from `low` to below `low + 2 ** bits`; what is used before it is reached, and by it."""

    low: int
    bits: int
    before: float
    inside: float

    @property
    def high(self) -> int:
        return self.low + (1 << self.bits)


@dataclass(frozen=True)
class Rule:
    """Who climbs how far: steps steeper than `high`, and units of a lot below `lot` those to `low`."""

    limit: int
    high: float
    low: float
    lot: int

    def arms(self, table: Columns) -> Ints:
        """The arm of each unit, [n] int64."""
        near = Climb(table, self.limit)
        arm = near.at.astype(np.int64)
        while near.step(self.low):
            take = near.slope >= self.high
            if not take.all():
                take |= lots(table.unit[near.rows]) < self.lot
            arm[near.rows[take]] = near.at[near.rows[take]]
        return arm


class Climb:
    """Units on their way up their hulls; `step` moves all that still can by one step.

    Attributes:
        at: Where every unit stands, [n]; it starts at its cheapest arm, the best of those.
        rows: Who took the last step, and its `slope` and `extra` use, [rows].
    """

    def __init__(self, table: Columns, limit: int) -> None:
        self._use, self._net, self._allowed = table.uses[limit], table.net, table.allowed
        n = len(table)
        self.at = np.zeros(n, dtype=np.int8)
        self._here_net, self._here_use = self._net[0].copy(), np.full(n, self._use[0])
        for arm in range(1, len(self._net)):
            net, use = self._net[arm], self._use[arm]
            if np.ndim(use) == 0 and use > self._use[0] == np.min(self._use):
                continue  # control is cheaper for everybody
            better = (use < self._here_use) | ((use == self._here_use) & (net > self._here_net))
            if self._allowed is not None:
                better &= self._allowed[arm]
            self.at[better] = arm
            np.copyto(self._here_net, net, where=better)
            np.copyto(self._here_use, use, where=better)
        self.start_use = float(self._here_use.sum())
        self.rows = np.arange(n)
        self._cap = np.full(n, STEEPEST)
        self.slope = self.extra = self.gain = np.zeros(0)
        self._first = True

    def step(self, least: float = 0.0) -> bool:
        """Take the steepest step up of at least this slope; False where nobody has one."""
        rows, everyone = self.rows, self._first
        here_net, here_use = self._here_net, self._here_use
        steepest = np.zeros(len(rows))
        target = np.zeros(len(rows), dtype=np.int8)
        for arm in range(len(self._net)):
            net, use = self._net[arm], self._use[arm]
            if not everyone:
                net, use = net[rows], use[rows] if np.ndim(use) else use
            gain, extra = net - here_net, use - here_use
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                slope = np.minimum(gain / extra, STEEPEST)
            up = (gain > 0) & (extra >= 0) & (slope > steepest)
            if self._allowed is not None:
                up &= self._allowed[arm] if everyone else self._allowed[arm][rows]
            np.copyto(steepest, slope, where=up)
            target[up] = arm
        # concave but for rounding: a step is never steeper than the one before it
        steepest = np.minimum(steepest, self._cap)
        found = np.flatnonzero((steepest > 0) & (steepest >= least))
        self.rows, self.slope, self._cap = rows[found], steepest[found], steepest[found]
        arm_of = target[found]
        net_there, use_there = np.empty(len(found)), np.empty(len(found))
        for arm in range(len(self._net)):
            here = np.flatnonzero(arm_of == arm)
            who = self.rows[here]
            use = self._use[arm]
            net_there[here] = self._net[arm][who]
            use_there[here] = use[who] if np.ndim(use) else use
        self.gain, self.extra = net_there - here_net[found], use_there - here_use[found]
        self._here_net, self._here_use, self._first = net_there, use_there, False
        self.at[self.rows] = arm_of
        return bool(len(found))


def find(source: Source, grid: Grid, limit: int, near: float = 0.0) -> Rule:
    """The rule that keeps to one of the limits, the only finite one, and to its price.

    Its bound must not be below what all units use at the least. A price that must be `near` (0: not
    known) saves a pass, if it is.
    """
    most = grid.at_most[limit]
    step = partial(_by_slope, grid=grid, limit=limit)
    lot = partial(_by_lot, grid=grid, limit=limit)
    steep: Bin | None = None
    if near > 0:
        around = Bin(_key(near) - (1 << NEAR_BITS - 1), NEAR_BITS, 0.0, np.inf)
        steep = _descend(lambda bins: _sum(source, partial(step, place=bins)), around, most, _width)
    if steep is None:
        every = Bin(0, SLOPE_BITS, 0.0, np.inf)
        steep = _descend(lambda bins: _sum(source, partial(step, place=bins)), every, most, _width)
    if steep is None:  # the limit doesn't bind: everybody climbs to the top
        return Rule(limit, 0.0, 0.0, 0)
    high, low = _slope(steep.high), _slope(steep.low)
    lucky = _descend(
        lambda place: _sum(source, partial(lot, place=place, high=high, low=low)),
        Bin(0, BITS, steep.before, steep.inside),
        most,
        worth=lambda place: FINE * place.inside / abs(most) if most else 1.0,
        rising=True,
    )
    return Rule(limit, high, low, 1 << BITS if lucky is None else lucky.low)


def _descend(
    histogram: Callable[[Bin], Floats],
    place: Bin,
    most: float,
    worth: Callable[[Bin], float],
    *,
    rising: bool = False,
) -> Bin | None:
    """Split the bin in which `most` is reached until it is worth no more; None: not reached in it.

    Keys are taken from the highest down, and the histogram's last entry is what is used before the
    bin; or (`rising`) from the lowest up, after what is used before it.
    """
    first = True
    while place.bits and (first or worth(place) > NEGLIGIBLE):
        found = histogram(place)
        uses = found[:-1] if rising else found[-2::-1]
        before = place.before if rising else float(found[-1])
        reached = before + np.cumsum(uses)
        over = int(np.searchsorted(reached, most, side="right"))
        if over == len(uses) or before > most:
            return None
        bits = max(place.bits - BINS_BITS, 0)
        number = over if rising else len(uses) - 1 - over
        place = Bin(
            place.low + (number << bits),
            bits,
            float(reached[over] - uses[over]),
            float(uses[over]),
        )
        first = False
    return place


def _width(place: Bin) -> float:
    """What the bin could still bring, as a share of the value of the whole limit at its price."""
    high = _slope(place.high)
    reached = place.before + place.inside
    share = place.inside / reached if reached > 0 else 1.0
    return min(share, 1.0) * (1.0 - _slope(place.low) / high)


def _slope(key: int) -> float:
    """The slope whose bits these are."""
    return float(np.int64(min(key, _LAST)).view(np.float64))


def _key(slope: float) -> int:
    return int(np.float64(slope).view(np.int64))


_LAST = int(np.float64(STEEPEST).view(np.int64))


def _by_slope(portion: Portion, grid: Grid, limit: int, place: Bin) -> Floats:
    """Uses of the steps by slope within the bin, [bins], and last what is used before it."""
    near = Climb(columns(portion, grid), limit)
    bits = max(place.bits - BINS_BITS, 0)
    count = 1 << (place.bits - bits)
    found = np.zeros(count + 1)
    found[-1] = near.start_use
    low = _slope(place.low)
    while near.step(low):
        number = (near.slope.view(np.int64) - place.low) >> bits
        inside = number < count
        found[:-1] += np.bincount(number[inside], near.extra[inside], minlength=count)
        found[-1] += near.extra[~inside].sum()
    return found


def _by_lot(
    portion: Portion, grid: Grid, limit: int, place: Bin, high: float, low: float
) -> Floats:
    """Uses of the steps with slopes from `low` to below `high` by lot, [bins], and a zero."""
    table = columns(portion, grid)
    near = Climb(table, limit)
    bits = max(place.bits - BINS_BITS, 0)
    count = 1 << (place.bits - bits)
    found = np.zeros(count + 1)
    while near.step(low):
        some = np.flatnonzero(near.slope < high)
        number = (lots(table.unit[near.rows[some]]) - place.low) >> bits
        inside = (number >= 0) & (number < count)
        found[:-1] += np.bincount(number[inside], near.extra[some][inside], minlength=count)
    return found


def _sum(source: Source, work: Callable[[Portion], Floats]) -> Floats:
    total: Floats = np.zeros(1)
    for found in source.map(work):
        total = total + found
    return total
