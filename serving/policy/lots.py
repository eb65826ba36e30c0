"""Lots: a number for each unit that decides between allocations that are worth the same.

Unlike the keyed draws of `hashing`, these guard nothing and need no salt; they are made for whole
columns at once, so that a table of 1e7 units can be split by them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaigns.errors import DataError
from serving.policy.inputs import Ints

BITS = 48  # lots are whole numbers below 2 ** BITS


def lots(units: NDArray[Any]) -> Ints:
    """The lot of each unit, [n] int64, spread evenly over [0, 2 ** BITS).

    The same unit always has the same lot, whatever table it stands in. Whole numbers and words are
    mixed by splitmix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators").

    Raises:
        DataError: Unit ids are neither words nor whole numbers.
    """
    kind = units.dtype.kind
    if kind in "iu":
        state = units.astype(np.uint64)
    elif kind in "UO" and (kind == "U" or all(isinstance(unit, str) for unit in units)):
        state = _letters(units.astype(np.str_))
    else:
        raise DataError(f"Unit ids must be words or whole numbers, not {units.dtype}.")
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = state ^ (state >> np.uint64(31))
    return (mixed >> np.uint64(64 - BITS)).astype(np.int64)


def _letters(words: NDArray[np.str_]) -> NDArray[np.uint64]:
    """A polynomial in the letters; the padding of shorter words, zeros, adds nothing."""
    width = words.dtype.itemsize // 4
    letters = np.ascontiguousarray(words).view(np.uint32).reshape(len(words), width)
    total, power = np.zeros(len(words), dtype=np.uint64), 1
    for place in range(width):
        power = power * 0x100000001B3 % 2**64
        with np.errstate(over="ignore"):
            total += letters[:, place].astype(np.uint64) * np.uint64(power)
    return total
