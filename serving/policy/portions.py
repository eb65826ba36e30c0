"""A unit table in portions, summed so exactly that the number of portions can't matter.

Sums of floating point numbers depend on their order. So values and uses are first rounded to a grid, a
power of two so coarse that every sum over the table fits into 53 bits: such sums are exact, in any
order. Values go to the nearest point, uses to the next higher, so no limit is passed for it. With 1e7
units the grid is about 1e-9 of the largest entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from campaigns.errors import DataError
from serving.policy.inputs import Bools, Floats, eligible_matrix, numbers, same_length, value_matrix
from serving.policy.limits import Limit

Result = TypeVar("Result")
ROWS = 1 << 16  # of a portion: its columns stay in the processor's cache
EXACT = 2.0**52


@dataclass(frozen=True, eq=False)
class Portion:
    """Some rows of the unit table.

    Attributes:
        value: Value of each arm over control, [n, A]; column 0 is 0.
        limits: What the allocation has to keep to; the same names and bounds in every portion.
        unit: Their ids, [n], words or whole numbers, each once in the table.
        eligible: Which arms a unit may get, [n, A] bool; control is always allowed.
    """

    value: ArrayLike
    limits: tuple[Limit, ...]
    unit: NDArray[Any]
    eligible: ArrayLike | None = None


class Source(Protocol):
    """A unit table that can be gone through again and again."""

    def map(self, work: Callable[[Portion], Result]) -> Iterable[Result]:
        """What `work` answers for each portion, in any order."""
        ...


@dataclass(frozen=True)
class Portions:
    """Portions made one after the other, in this process.

    Attributes:
        make: Starts again from the first portion whenever it is called.
    """

    make: Callable[[], Iterable[Portion]]

    def map(self, work: Callable[[Portion], Result]) -> Iterator[Result]:
        return (work(portion) for portion in self.make())

    @classmethod
    def of(
        cls, value: ArrayLike, limits: Iterable[Limit], eligible: ArrayLike | None = None
    ) -> Portions:
        """Arrays in memory as portions; the units are the row numbers."""
        matrix, every = value_matrix(value), tuple(limits)
        shape = (matrix.shape[0], matrix.shape[1])
        _checked_limits(every, shape)
        allowed = None if eligible is None else eligible_matrix(eligible, shape)

        def make() -> Iterator[Portion]:
            for start in range(0, len(matrix), ROWS):
                part = slice(start, min(start + ROWS, len(matrix)))
                yield Portion(
                    matrix[part],
                    tuple(limit.rows(part) for limit in every),
                    np.arange(part.start, part.stop),
                    None if allowed is None else allowed[part],
                )

        return cls(make)


@dataclass(frozen=True)
class Grid:
    """What a first pass learns of the table.

    Attributes:
        units: N.
        arms: A.
        names: Of the limits, m.
        at_most: Their bounds, [m].
        value: Distance of the grid's points for values.
        use: The same for the uses of each limit, m.
    """

    units: int
    arms: int
    names: tuple[str, ...]
    at_most: tuple[float, ...]
    value: float
    use: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Columns:
    """A portion on the grid: values and uses an arm at a time, each [n] or one number for all."""

    net: list[Floats]
    uses: list[list[Any]]
    allowed: list[Bools] | None
    unit: NDArray[Any]

    def __len__(self) -> int:
        return len(self.unit)


def measure(source: Source) -> Grid:
    """Check every portion, and find the grid on which their sums are exact.

    Raises:
        DataError: Wrong shapes, a value or use that isn't finite, portions that disagree.
    """
    units, largest, first = 0, np.zeros(0), None
    for count, arms, names, at_most, most in source.map(_largest):
        if first is None:
            first, largest = (arms, names, at_most), np.zeros(len(most))
        if (arms, names, at_most) != first:
            raise DataError(
                f"Portions must have the same arms and limits, but one has {arms} arms and the "
                f"limits {dict(zip(names, at_most))}, another {first[0]} and "
                f"{dict(zip(first[1], first[2]))}."
            )
        units, largest = units + count, np.maximum(largest, most)
    if first is None:
        return Grid(0, 1, (), (), 1.0, ())
    steps = [_step(units, float(most)) for most in largest]
    return Grid(units, *first, steps[0], tuple(steps[1:]))


def columns(portion: Portion, grid: Grid) -> Columns:
    """The portion's numbers on the grid."""
    value = np.asarray(portion.value, dtype=np.float64)
    net = [np.rint(value[:, arm] / grid.value) * grid.value for arm in range(grid.arms)]
    uses = [
        [np.ceil(limit.use[..., arm] / step) * step for arm in range(grid.arms)]
        for limit, step in zip(portion.limits, grid.use)
    ]
    allowed = None
    if portion.eligible is not None:
        table = np.asarray(portion.eligible)
        allowed = [np.ones(len(value), dtype=bool)]
        allowed += [np.ascontiguousarray(table[:, arm]) for arm in range(1, grid.arms)]
    return Columns(net, uses, allowed, portion.unit)


def _largest(portion: Portion) -> tuple[int, int, tuple[str, ...], tuple[float, ...], Floats]:
    """Rows, arms, limits, and the largest value and uses of one portion, which it checks."""
    value = value_matrix(portion.value)
    shape = (value.shape[0], value.shape[1])
    same_length("unit", portion.unit, len(value))
    eligible_matrix(portion.eligible, shape)
    _checked_limits(portion.limits, shape)
    return (
        *shape,
        tuple(limit.name for limit in portion.limits),
        tuple(limit.at_most for limit in portion.limits),
        np.array([_most(value), *(_most(limit.use) for limit in portion.limits)]),
    )


def _most(array: Floats) -> float:
    return max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))


def _step(units: int, largest: float) -> float:
    """The finest power of two of which `units` entries this large sum exactly."""
    if largest == 0:
        return 1.0
    return float(2.0 ** np.ceil(np.log2(largest) + np.log2(max(units, 1)) - np.log2(EXACT)))


def _checked_limits(limits: tuple[Limit, ...], shape: tuple[int, int]) -> None:
    names = [limit.name for limit in limits]
    if len(set(names)) < len(names):
        raise DataError(f"Limits must have names of their own, not {names}.")
    for limit in limits:
        use = numbers(f"use of {limit.name!r}", limit.use)
        if use.shape not in (shape, shape[1:]):
            raise DataError(
                f"use of {limit.name!r} must have the shape [{shape[1]}] or {list(shape)}, not "
                f"{list(use.shape)}."
            )
        if np.isnan(limit.at_most) or limit.at_most == -np.inf:
            raise DataError(f"{limit.name!r} must have a bound that is a number.")
