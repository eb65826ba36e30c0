"""An allocation within any number of limits, for a table in memory or in portions.

One limit is solved by histograms of breakpoints (`breakpoints`), several by cutting planes (`dual`); the
units that are nearly indifferent are then settled exactly (`core`). All that is learned of the table are
exact sums and small samples, so the answer is the same for any number of portions, wherever they are
worked on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from campaigns.errors import DataError
from serving.policy.breakpoints import Rule, find
from serving.policy.core import Core, nearest, sample, settle
from serving.policy.dual import Extent, Mix, best_arms, minimise, scores
from serving.policy.inputs import Floats, Ints
from serving.policy.limits import Limit
from serving.policy.portions import Columns, Grid, Portion, Portions, Source, columns, measure

CORE = 512  # units settled exactly at first, four times as many where that isn't enough
LARGEST_CORE = 8192
SAMPLE = 8192  # units of which a large table's first prices are found
TOLERANCE = 1e-5
ROUNDING = 1e-12  # sums of money are rounded: three times 0.1 is within a budget of 0.3


@dataclass(frozen=True, eq=False)
class Plan:
    """Who gets what, within every limit.

    Attributes:
        prices: Value that one more unit of each limit would bring, by its name.
        value: sum(v) over the given arms.
        uses: sum(use) of each limit, never above its bound (to a part in 1e12).
        upper_bound: No allocation within the limits has more value.
        gap: (upper_bound - value) / |upper_bound|; 0 where they are equal.
        units: How many units there are.
    """

    prices: dict[str, float]
    value: float
    uses: dict[str, float]
    upper_bound: float
    gap: float
    units: int
    _grid: Grid
    _choice: Rule | Mix
    _settled: tuple[NDArray[Any], Ints]

    def arms(self, portion: Portion) -> Ints:
        """The arm of each unit of a portion of the table that was planned for, [n] int64."""
        return _arms(columns(portion, self._grid), self._choice, self._settled)


def plan(source: Source, *, tolerance: float = TOLERANCE) -> Plan:
    """Maximise sum(v) within all limits, one arm a unit.

    Args:
        source: The unit table; it is gone through about 7 times with one limit, 15 to 60 with several.
        tolerance: The gap that is small enough not to settle more units exactly.

    Raises:
        DataError: Bad numbers or shapes, or limits that no allocation keeps to.
    """
    grid = measure(source)
    extent = _sum(source, partial(_extent, grid=grid), 2 + 2 * len(grid.names))
    for name, most, smallest in zip(grid.names, grid.at_most, extent[3::2]):
        if smallest > most + ROUNDING * abs(most):
            raise DataError(
                f"{name!r} can't be kept even alone: it asks for a sum of at most {most:g}, but the "
                f"least that eligible arms come to is {smallest:g}."
            )
    choice, prices = _solve(source, grid, extent)
    return _settled(source, grid, choice, prices, tolerance)


def allocate_within(
    value: ArrayLike,
    limits: Iterable[Limit],
    *,
    eligible: ArrayLike | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Ints, Plan]:
    """`plan` for arrays in memory: the arm of each unit, [N] int64, and the plan behind them.

    Args:
        value: Value of each arm over control, [N, A]; column 0 (control) is 0. Where a unit of cost
            must return at least r, give value - r * cost.
        limits: What to keep to; see `serving.policy.limits`.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.
        tolerance: As in `plan`.
    """
    table = Portions.of(value, limits, eligible)
    made = plan(table, tolerance=tolerance)
    arms = list(table.map(made.arms))
    return (np.concatenate(arms) if arms else np.zeros(0, dtype=np.int64)), made


def _solve(source: Source, grid: Grid, extent: Floats) -> tuple[Rule | Mix, Floats]:
    """Who chooses how, and the prices [m]: 0 for limits that don't bind."""
    finite = np.flatnonzero(np.isfinite(grid.at_most))
    if len(finite) == 1:
        (limit,) = finite.tolist()
        rule = find(source, grid, limit, near=_guess(source, grid, finite)[limit])
        prices = np.zeros(len(grid.names))
        prices[limit] = rule.high
        return rule, prices

    def evaluate(prices: Floats) -> Floats:
        return _sum(source, partial(_cut, grid=grid, prices=prices), 1 + len(prices))

    near = _guess(source, grid, finite)
    return _minimised(evaluate, grid, finite, np.array(grid.at_most), extent, near)


def _minimised(
    evaluate: Callable[[Floats], Floats],
    grid: Grid,
    finite: Ints,
    at_most: Floats,
    extent: Floats,
    near: Floats,
) -> tuple[Mix, Floats]:
    """`dual.minimise` over the limits that are finite; the others' prices are 0."""
    prices = np.zeros(len(at_most))

    def some(given: Floats) -> Floats:
        prices[finite] = given
        return evaluate(prices)[np.r_[0, 1 + finite]]

    names = tuple(grid.names[j] for j in finite)
    scale = Extent(float(extent[0]), extent[2::2][finite], float(extent[1]))
    mix, best = minimise(some, names, at_most[finite], scale, near[finite])
    wide = np.zeros((len(mix.prices), len(prices)))
    wide[:, finite] = mix.prices
    prices[finite] = best
    return Mix(wide, mix.until), prices


def _guess(source: Source, grid: Grid, finite: Ints) -> Floats:
    """Prices [m] that a sample of a large table has, the units of the lowest lots; else zeros."""
    nothing = np.zeros(len(grid.names))
    if grid.units < 4 * SAMPLE or not len(finite):
        return nothing
    first = partial(sample, grid=grid, most=SAMPLE)
    few = reduce(partial(Core.joined, most=SAMPLE), source.map(first)).table()
    bounds = np.array(grid.at_most) * len(few) / grid.units
    try:
        return _minimised(
            lambda prices: _sums(few, best_arms(few, prices)),
            grid,
            finite,
            bounds,
            _extents(few),
            nothing,
        )[1]
    except DataError:  # too few of those whom a limit needs, perhaps
        return nothing


def _settled(
    source: Source, grid: Grid, choice: Rule | Mix, prices: Floats, tolerance: float
) -> Plan:
    """What the choice comes to, with a core as large as it takes."""
    at_most = np.array(grid.at_most)
    room = at_most + ROUNDING * np.abs(at_most)
    nobody = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    work = partial(_total, grid=grid, choice=choice, prices=prices)
    found = _sum(source, partial(work, without=nobody[0]), 2 + len(prices))
    bound = float(found[1] + prices[prices > 0] @ at_most[prices > 0])
    best = (float(found[0]), found[2:], nobody) if (found[2:] <= room).all() else None
    size = CORE
    enough = best is not None and _gap(bound, best[0]) <= tolerance
    while size <= LARGEST_CORE and not enough:
        near = partial(nearest, grid=grid, prices=prices, most=size)
        core = reduce(partial(Core.joined, most=size), source.map(near))
        inside = np.sort(core.unit)
        rest = _sum(source, partial(work, without=inside), 2 + len(prices))
        arm, fractions = settle(core, room - rest[2:])
        if arm is not None:
            rows = np.arange(len(arm))
            value = float(rest[0] + core.net[rows, arm].sum())
            uses = rest[2:] + core.uses[:, rows, arm].sum(axis=1)
            if best is None or value > best[0]:
                order = np.argsort(core.unit)
                best = value, uses, (core.unit[order], arm[order])
            # more units would help only where splitting these doesn't reach the bound
            enough = _gap(bound, rest[0] + fractions) <= tolerance
        if len(core.unit) < size:
            break
        size *= 4
    if best is None:
        raise DataError(
            f"No allocation was found within all of the limits ({', '.join(grid.names)}): they leave "
            "no room for whole units; loosen one of them."
        )
    value, uses, settled = best
    bound = max(bound, value)
    return Plan(
        prices=dict(zip(grid.names, prices.tolist())),
        value=value,
        uses=dict(zip(grid.names, uses.tolist())),
        upper_bound=bound,
        gap=_gap(bound, value),
        units=grid.units,
        _grid=grid,
        _choice=choice,
        _settled=settled,
    )


def _gap(bound: float, value: float) -> float:
    return max(bound - value, 0.0) / abs(bound) if bound else max(-value, 0.0)


def _arms(table: Columns, choice: Rule | Mix, settled: tuple[NDArray[Any], Ints]) -> Ints:
    arm, (units, theirs) = choice.arms(table), settled
    if len(units):
        place = np.minimum(np.searchsorted(units, table.unit), len(units) - 1)
        known = units[place] == table.unit
        arm[known] = theirs[place[known]]
    return arm


def _extent(portion: Portion, grid: Grid) -> Floats:
    """Value and uses if the largest added up, and if the least did: [2 + 2 m]."""
    return _extents(columns(portion, grid))


def _extents(table: Columns) -> Floats:
    found = []
    for each in (table.net, *table.uses):
        one_a_row = [np.broadcast_to(arm, len(table)) for arm in each]
        most, least = np.abs(one_a_row[0]), one_a_row[0].copy()
        for arm in range(1, len(one_a_row)):
            open_to = True if table.allowed is None else table.allowed[arm]
            np.maximum(most, np.abs(one_a_row[arm]), out=most, where=open_to)
            np.minimum(least, one_a_row[arm], out=least, where=open_to)
        found += [most.sum(), least.sum()]
    return np.array(found)


def _cut(portion: Portion, grid: Grid, prices: Floats) -> Floats:
    """Value and uses of the best arms at these prices, [1 + m]."""
    table = columns(portion, grid)
    return _sums(table, best_arms(table, prices))


def _total(
    portion: Portion, grid: Grid, choice: Rule | Mix, prices: Floats, without: NDArray[Any]
) -> Floats:
    """Value of the chosen arms, the largest scores of all units, uses of the chosen arms: [2 + m].

    Units in `without`, sorted, count in the second only.
    """
    table = columns(portion, grid)
    best = reduce(np.maximum, (scores(table, prices, arm) for arm in range(grid.arms)))
    arm = choice.arms(table)
    keep = np.ones(len(table), dtype=bool)
    if len(without):
        place = np.minimum(np.searchsorted(without, table.unit), len(without) - 1)
        keep = without[place] != table.unit
    found = _sums(table, arm, keep)
    return np.r_[found[0], best.sum(), found[1:]]


def _sums(table: Columns, arm: Ints, keep: NDArray[np.bool_] | None = None) -> Floats:
    """Value and uses of the arms, [1 + m]; exact, as everything on the grid is."""
    found = np.zeros(1 + len(table.uses))
    for number in range(len(table.net)):
        here = arm == number if keep is None else (arm == number) & keep
        mine = here.astype(np.float64)
        count = mine.sum()
        for place, each in enumerate((table.net, *table.uses)):
            given = each[number]
            found[place] += count * given if np.ndim(given) == 0 else given @ mine
    return found


def _sum(source: Source, work: Callable[[Portion], Floats], size: int) -> Floats:
    return sum(source.map(work), np.zeros(size))
