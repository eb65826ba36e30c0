"""Which units belong to which variant of an experiment: a keyed draw that sticks to the unit.

Nothing is stored: whoever knows the experiment's file knows every unit's bucket, today and when it is
read out. The draw has a purpose and a key of its own, so it says nothing about who is explored,
held out or in a trial, and the buckets of two experiments cross evenly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.hashing import Units, uniform
from serving.policy.inputs import Ints, numbers

BUCKET: Final = "bucket"


def buckets(units: Units, shares: ArrayLike, *, salt: str, experiment: str) -> Ints:
    """The variant of each unit.

    Args:
        units: Ids, [N], text or whole numbers.
        shares: Of the variants, [V], each at least 0; they sum to 1. To change them moves units.
        salt: Key of the draw.
        experiment: Its name: two with one salt draw independently.

    Returns:
        Index of the variant, int64 [N].

    Raises:
        DataError: The shares don't sum to 1 or one is negative.

    >>> buckets(["ann", "bob", "cem"], [0.5, 0.5], salt="spring", experiment="mail").tolist()
    [0, 0, 1]
    """
    parts = numbers("shares", shares)
    if parts.ndim != 1 or (parts < 0).any() or abs(parts.sum() - 1) > 1e-9:
        raise DataError(f"shares must be at least 0 and sum to 1, not {np.asarray(shares)}.")
    draw = uniform(units, salt=salt, epoch=experiment, purpose=BUCKET)
    return np.searchsorted(np.cumsum(parts)[:-1], draw, side="right").astype(np.int64)
