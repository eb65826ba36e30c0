"""Keyed uniform draws: the same (salt, unit, epoch, purpose) always gives the same number.

A decision can thus be derived again from its record, a unit keeps its draw within an epoch, and
the draws for different purposes (the exploration coin, the arm, the holdout) are independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from campaigns.errors import DataError
from serving.policy.inputs import Floats

COIN: Final = "coin"  # is this unit explored in this epoch?
ARM: Final = "arm"  # which arm does an explored unit get?
HOLDOUT: Final = "holdout"  # is this unit never treated? (drawn without an epoch)
DIRECTED: Final = "directed"  # which arm does a directed draw give?
BLOCK: Final = "block"  # in which order does a trial deal its arms?
RATION: Final = "ration"  # who gets a rationed policy?

Units = Sequence[str] | Sequence[int] | NDArray[Any]


def uniform(units: Units, *, salt: str, epoch: str | int, purpose: str) -> Floats:
    """Uniform draws in [0, 1), one a unit: blake2b keyed with the salt, its first 53 bits.

    Args:
        units: N unit ids, text or whole numbers (5 and "5" are the same unit).
        salt: The campaign's salt; another salt gives independent draws.
        epoch: The exploration epoch; a unit's draw is the same all through one.
        purpose: What the draw decides; draws for two purposes are independent.

    Returns:
        float64 [N].

    Raises:
        DataError: A unit id is neither text nor a whole number.
    """
    start = hashlib.blake2b(_field(purpose) + _field(str(epoch)), digest_size=8, key=_key(salt))
    digests = []
    for unit in _encoded(units):
        state = start.copy()
        state.update(unit)
        digests.append(state.digest())
    bits = np.frombuffer(b"".join(digests), dtype="<u8")
    return (bits >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def _encoded(units: Units) -> Iterable[bytes]:
    listed: list[Any] = units.tolist() if isinstance(units, np.ndarray) else list(units)
    kinds = set(map(type, listed))
    if kinds <= {str}:
        # surrogatepass: text from outside may hold lone surrogates, which must not crash
        return (unit.encode("utf-8", "surrogatepass") for unit in listed)
    if kinds <= {str, int}:
        return (str(unit).encode("utf-8", "surrogatepass") for unit in listed)
    odd = next(i for i, unit in enumerate(listed) if type(unit) not in (str, int))
    raise DataError(f"Unit ids must be text or whole numbers, but number {odd} is {listed[odd]!r}.")


def _field(text: str) -> bytes:
    """Text behind its length, so that ("ab", "c") and ("a", "bc") differ."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(4, "little") + data


def _key(salt: str) -> bytes:
    """A key of a fixed length: blake2b takes at most 64 bytes."""
    return hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=32).digest()
