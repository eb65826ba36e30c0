"""Checks shared by the policy: every array and number is refused or made canonical here."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from campaigns.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Shape = tuple[int, int]


def numbers(name: str, given: ArrayLike) -> Floats:
    """`given` as float64; DataError where it is not numeric, NaN or infinite."""
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold numbers: {error}.") from error
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{name} must be finite, but {name}{list(where)} is {array[where]}.")
    return array


def value_matrix(value: ArrayLike) -> Floats:
    """Values [N, A] over control: finite, two-dimensional, zero for arm 0."""
    matrix = numbers("value", value)
    if matrix.ndim != 2 or matrix.shape[1] < 1:
        raise DataError(f"value must have the shape [units, arms], not {list(matrix.shape)}.")
    if (matrix[:, 0] != 0).any():
        row = int(np.flatnonzero(matrix[:, 0])[0])
        raise DataError(
            f"value[{row}, 0] is {matrix[row, 0]}, but arm 0 is control and values are gains over "
            "control, so its column must be 0."
        )
    return matrix


def cost_matrix(cost: ArrayLike, shape: Shape) -> Floats:
    """Costs [A] (one an arm) or [N, A] (one a unit and arm) as a read-only view [N, A]."""
    costs = numbers("cost", cost)
    if costs.shape not in (shape, shape[1:]):
        raise DataError(
            f"cost must have the shape [{shape[1]}] or [{shape[0]}, {shape[1]}] to go with "
            f"the {shape[0]} units and {shape[1]} arms, not {list(costs.shape)}."
        )
    if costs[..., 0].any():
        raise DataError("cost must be 0 for arm 0, which is control.")
    return np.broadcast_to(costs, shape)


def arm_count(cost: ArrayLike) -> int:
    """A, the number of arms, from costs [A] or [N, A]."""
    shape = numbers("cost", cost).shape
    if len(shape) not in (1, 2) or shape[-1] < 1:
        raise DataError(f"cost must have the shape [arms] or [units, arms], not {list(shape)}.")
    return shape[-1]


def eligible_matrix(eligible: ArrayLike | None, shape: Shape) -> Bools:
    """Eligibility [N, A]; None allows every arm, and control is always allowed."""
    if eligible is None:
        return np.broadcast_to(np.True_, shape)
    matrix = np.array(eligible)
    if matrix.dtype != np.bool_ or matrix.shape != shape:
        raise DataError(
            f"eligible must be boolean with the shape {list(shape)}, "
            f"not {matrix.dtype} with {list(matrix.shape)}."
        )
    matrix[:, 0] = True
    return matrix


def arm_vector(arm: ArrayLike, arms: int, name: str = "arm") -> Ints:
    """Arm indices [N], each in [0, arms)."""
    vector = np.asarray(arm)
    if vector.size == 0:
        vector = vector.astype(np.int64)
    if vector.ndim != 1 or not np.issubdtype(vector.dtype, np.integer):
        raise DataError(
            f"{name} must be whole numbers with the shape [units], "
            f"not {vector.dtype} with {list(vector.shape)}."
        )
    outside = (vector < 0) | (vector >= arms)
    if outside.any():
        raise DataError(f"{name} must be from 0 to {arms - 1}, but holds {vector[outside][0]}.")
    return vector.astype(np.int64)


def amount(name: str, given: Any) -> float:
    """A sum of money: a number >= 0; infinity means no limit."""
    if not _is_number(given) or math.isnan(given) or given < 0:
        raise DataError(f"{name} must be a number that is not negative, not {given!r}.")
    return float(given)


def share(name: str, given: Any) -> float:
    """A probability: a number from 0 to 1."""
    if not _is_number(given) or not 0 <= given <= 1:
        raise DataError(f"{name} must be a number from 0 to 1, not {given!r}.")
    return float(given)


def same_length(name: str, given: Sized, count: int) -> None:
    """Refuse `given` unless it has one entry a unit."""
    if len(given) != count:
        raise DataError(f"{name} has {len(given)} entries for {count} units.")


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float | np.integer | np.floating) and not isinstance(given, bool)
