"""What can be told of one column by its name and by its values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

SAMPLE = 1000  # values that are looked at one by one
ISO_TIME = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?( ?Z|[+-]\d\d(:?\d\d)?)?)?"
ZONE = r":\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"


@dataclass(frozen=True)
class Guess:
    """A column and, in words, why it was chosen (or left out)."""

    column: str
    why: str


def tokens(column: str) -> list[str]:
    """The words of a column's name.

    >>> tokens("daysSince_Login")
    ['days', 'since', 'login']
    """
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower())


def has(column: str, hints: Collection[str]) -> bool:
    """Whether a word of the column's name is one of these."""
    return any(token in hints for token in tokens(column))


def listed(names: Iterable[object]) -> str:
    """Names in one line, whatever characters they hold."""
    return ", ".join(repr(str(name)) for name in names)


def is_number(column: pd.Series) -> bool:
    """Numbers, booleans left out."""
    return (
        pd.api.types.is_numeric_dtype(column)
        and not pd.api.types.is_bool_dtype(column)
        and not pd.api.types.is_complex_dtype(column)
    )


def is_infinite(column: pd.Series) -> bool:
    """Whether a number in it is infinite."""
    return bool(np.isinf(column.to_numpy(dtype=np.float64, na_value=np.nan)).any())


def is_time(column: pd.Series) -> bool:
    """Datetimes, or text that reads like ``2026-01-31`` or ``2026-01-31T08:30:00Z``."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("date", "datetime", "datetime64"):
        return True
    return kind == "string" and bool(_text(column).str.fullmatch(ISO_TIME).all())


def has_zone(column: pd.Series) -> bool:
    """Whether the times of a column say which zone they are in."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.dt.tz is not None
    return bool(_text(column).str.contains(ZONE).all())


def is_countable(column: pd.Series) -> bool:
    """Whether its values can be told apart: not lists, mappings or arrays."""
    try:
        column.iloc[:SAMPLE].nunique()
    except TypeError:
        return False
    return True


def _text(column: pd.Series) -> pd.Series:
    return column.dropna().iloc[:SAMPLE].astype(str)
