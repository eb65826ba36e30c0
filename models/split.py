"""Which units a model learns from, is tuned on and is judged on: a keyed hash of the unit's id.

A unit falls in the same fold in every cycle, whatever rows come with it, so a champion was never
trained on the units that its challengers are judged on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

TRAIN, VALIDATION, TEST = 0, 1, 2
SHARES = (0.6, 0.2, 0.2)


def folds(unit_ids: Sequence[str] | np.ndarray | pd.Series, salt: str) -> np.ndarray:
    """The fold of each row's unit: 0 to train on, 1 to validate, 2 to test (60%, 20%, 20%).

    The first 64 bits of BLAKE2b (RFC 7693) keyed with the salt, of the id as text: the same on every
    machine and under every version of NumPy and pandas, and independent of the draws that explore.

    Args:
        unit_ids: Ids, [N]; 5 and "5" are the same unit.
        salt: Give what never changes for a campaign, its name: another salt draws new folds, and
            then a champion may have seen the rows that it is judged on.

    Returns:
        int8 [N].
    """
    return fold_of(keys(unit_ids, salt))


def keys(unit_ids: Sequence[str] | np.ndarray | pd.Series, salt: str) -> np.ndarray:
    """What :func:`folds` draws by: one number a unit, uniform over uint64, [N]."""
    # not pd.factorize: it takes a string to end at its first NUL
    units = [str(unit) for unit in np.asarray(unit_ids, dtype=object).tolist()]
    start = hashlib.blake2b(digest_size=8, key=_key(salt), person=b"updraft/folds")
    draws = {unit: _draw(start, unit) for unit in dict.fromkeys(units)}
    return np.fromiter((draws[unit] for unit in units), np.uint64, len(units))


def fold_of(key: np.ndarray) -> np.ndarray:
    """The fold of each of :func:`keys`, int8 [N]."""
    place = (key >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
    return np.searchsorted(np.cumsum(SHARES[:-1]), place, side="right").astype(np.int8)


def _draw(start: hashlib.blake2b, unit: str) -> int:
    state = start.copy()
    # surrogatepass: ids from outside may hold lone surrogates, which must not stop a run
    state.update(unit.encode("utf-8", "surrogatepass"))
    return int.from_bytes(state.digest(), "little")


def _key(salt: str) -> bytes:
    """A key of a fixed length: BLAKE2b takes at most 64 bytes."""
    return hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=32).digest()
