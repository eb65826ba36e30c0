"""The one place where the arrays that metrics take are checked; every refusal is a ``DataError``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from campaigns.errors import DataError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
Counts = NDArray[np.uint8]


def numbers(
    name: str,
    values: ArrayLike,
    shape: tuple[int | None, ...] = (None,),
    *,
    missing: bool = False,
    infinite: bool = False,
) -> Array:
    """``values`` as float64 of ``shape`` (None: any length above 0), finite unless told otherwise."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"metrics: {name} holds something that isn't a number ({error}).") from None
    fits = array.ndim == len(shape) and all(
        seen == wanted if wanted is not None else seen > 0
        for seen, wanted in zip(array.shape, shape)
    )
    if not fits:
        raise DataError(f"metrics: {name} has shape {array.shape}; it must be {_written(shape)}.")
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(array.sum()):  # then every value is; one pass without a mask
            return array
    _refuse(name, "NaN", 0 if missing else int(np.isnan(array).sum()), array.size)
    _refuse(name, "infinite", 0 if infinite else int(np.isinf(array).sum()), array.size)
    return array


def weights(weight: ArrayLike | None, rows: int) -> Array:
    """Row weights [N], all >= 0 and not all 0; ones where there are none."""
    if weight is None:
        return np.broadcast_to(1.0, rows)  # written once, however many rows
    array = numbers("weight", weight, (rows,))
    if array.min() < 0 or array.max() == 0:
        raise DataError(
            f"metrics: weight runs from {array.min():g} to {array.max():g};"
            " it must be at least 0, and above 0 somewhere."
        )
    return array


def inverse_propensities(propensity: ArrayLike | None, rows: int) -> Array | None:
    """1 / the probability of the arm that was given [N]; None where there are no propensities."""
    if propensity is None:
        return None
    array = numbers("propensity", propensity, (rows,))
    if array.min() <= 0 or array.max() > 1:
        raise DataError(
            f"metrics: propensity runs from {array.min():g} to {array.max():g}; it is the"
            " probability of the arm that was given, so above 0 and at most 1."
        )
    return 1.0 / array


def arm_indices(name: str, values: ArrayLike, rows: int | None, arms: int | None = None) -> Index:
    """Arm numbers [N], whole, from 0 to ``arms`` - 1."""
    array = np.asarray(values)
    if array.dtype.kind not in "biu" or array.ndim != 1 or len(array) != (rows or len(array) or -1):
        array = numbers(name, values, (rows,))
    top = np.inf if arms is None else arms - 1
    if array.min() < 0 or array.max() > top or _fractional(array):
        raise DataError(
            f"metrics: {name} runs from {array.min():g} to {array.max():g}; it must hold whole arm"
            f" numbers from 0 (control) to {'A - 1' if arms is None else arms - 1}."
        )
    return array.astype(np.int64, copy=False)


def _fractional(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and bool((array != np.floor(array)).any())


def both_groups(treated: Mask, control: Mask, weight: Array) -> None:
    """Refuse data in which nobody, or everybody, is treated."""
    some = weight > 0
    groups = (treated, control) if some.all() else (treated & some, control & some)
    heads = [int(np.count_nonzero(group)) for group in groups]
    if min(heads) == 0:
        raise DataError(
            f"metrics: {heads[0]} treated and {heads[1]} control rows with weight;"
            " an uplift needs at least one of each."
        )


def one_of(name: str, value: Any, options: tuple[Any, ...]) -> None:
    """Refuse an option that isn't in the list, and say the list."""
    if value not in options:
        raise DataError(f"metrics: {name}={value!r} isn't known; use one of {list(options)}.")


def _written(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('at least 1' if length is None else str(length) for length in shape)}]"


def _refuse(name: str, what: str, count: int, size: int) -> None:
    if count:
        raise DataError(f"metrics: {name} has {count} {what} of {size} values; it must be finite.")
