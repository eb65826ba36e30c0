"""Features as numbers: normal scores for numeric columns, ids for categorical ones.

Each column is a small frozen object, fit once and stored as JSON with the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from campaigns.errors import DataError

FEW = 64  # up to here a loop over the values beats factorizing them


def column(columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The column, or a DataError that names it and what there is."""
    try:
        return columns[name]
    except KeyError:
        there = sorted(map(str, columns))
        listed = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
        raise DataError(f"no column '{name}'; the columns are: {listed}") from None


@dataclass(frozen=True)
class Numeric:
    """A numeric column as normal scores: robust to skew, outliers and units.

    The score at a knot is the normal quantile of its mid-rank, (P(X < v) + P(X <= v)) / 2, so a
    spike (say half the rows at 0) gets the middle of its ranks. Between knots it is interpolated;
    outside it stays at the end. A missing value scores 0, the median.

    Attributes:
        name: The column.
        knots, scores: Where the score is known, ascending, and what it is there.
        flag: Whether ``fit`` saw missing values, so that a missing-value flag is worth a column.
    """

    name: str
    knots: list[float]
    scores: list[float]
    flag: bool

    @classmethod
    def fit(cls, name: str, values: np.ndarray, knots: int) -> Numeric:
        """Learn the knots from a column; one without any value scores 0 everywhere."""
        raw = as_numbers(name, values)
        seen = np.sort(raw[~np.isnan(raw)])
        if not len(seen):
            return cls(name, [0.0], [0.0], flag=True)
        grid = np.linspace(0.0, 1.0, knots)
        places = np.unique(np.quantile(seen, grid, method="nearest"))
        below = np.searchsorted(seen, places, side="left")
        upto = np.searchsorted(seen, places, side="right")
        middle = (below + upto) / (2.0 * len(seen))
        return cls(name, places.tolist(), ndtri(middle).tolist(), flag=len(seen) < len(raw))

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores [N], 0 where missing, and whether each was missing [N]."""
        raw = as_numbers(self.name, values)
        missing = np.isnan(raw)
        scores = np.interp(raw, *self._arrays)
        scores[missing] = 0.0
        return scores, missing

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.knots), np.array(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"name": self.name, "knots": self.knots, "scores": self.scores, "flag": self.flag}


def as_numbers(name: str, values: np.ndarray) -> np.ndarray:
    """The column as float64, None and NaN alike as NaN.

    Raises:
        DataError: It holds something that isn't a number.
    """
    try:
        raw = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raw = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(
            np.float64, na_value=np.nan
        )
        given = ~pd.isna(np.asarray(values, dtype=object))
        if bad := np.flatnonzero(np.isnan(raw) & given).tolist():
            seen = np.asarray(values, dtype=object)[bad[0]]
            raise DataError(f"column '{name}', row {bad[0]}: {seen!r} is not a number") from None
    if raw.ndim != 1:
        raise DataError(f"column '{name}' has {raw.ndim} dimensions; give one value a row")
    return raw


@dataclass(frozen=True)
class Category:
    """A categorical column as ids: 1, 2, ... by falling frequency; 0 is missing, unseen or rare.

    Values are compared as text, whole floats as integers (a missing value turns a column of
    integers into floats, and the ids must not change for that).

    Attributes:
        name: The column.
        values: The values that have an id, in the order of their ids from 1.
    """

    name: str
    values: list[str]
    _ids: dict[str | None, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids: dict[str | None, int] = {value: i for i, value in enumerate(self.values, start=1)}
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def fit(cls, name: str, values: np.ndarray, min_count: int, max_categories: int) -> Category:
        """Learn the vocabulary from a column."""
        codes, uniques = pd.factorize(np.asarray(values))
        counts: dict[str, int] = {}
        for value, count in zip(uniques.tolist(), np.bincount(codes[codes >= 0]).tolist()):
            if (key := as_key(value)) is not None:
                counts[key] = counts.get(key, 0) + count
        common = [key for key, count in counts.items() if count >= min_count]
        return cls(name, sorted(common, key=lambda key: (-counts[key], key))[:max_categories])

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Ids [N]."""
        raw = np.asarray(values)
        if raw.ndim != 1:
            raise DataError(f"column '{self.name}' has {raw.ndim} dimensions; give one value a row")
        if len(raw) <= FEW:
            return np.array([self._ids.get(as_key(v), 0) for v in raw.tolist()], dtype=np.int64)
        codes, uniques = pd.factorize(raw)
        ids = [self._ids.get(as_key(value), 0) for value in uniques.tolist()]
        return np.array([*ids, 0], dtype=np.int64)[codes]  # code -1, missing, takes the last

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"name": self.name, "values": self.values}


def as_key(value: object) -> str | None:
    """The text by which a category is known; None where it is missing."""
    if type(value) is str:
        return value
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@dataclass(frozen=True)
class Encoder:
    """Feature columns to tensors, the same in training and in serving.

    ``x_num`` holds a normal score a numeric column, then a flag column for each that had missing
    values in ``fit``; ``x_cat`` an id a categorical column.
    """

    numeric: tuple[Numeric, ...]
    categorical: tuple[Category, ...]

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, np.ndarray],
        numeric: Sequence[str],
        categorical: Sequence[str],
        *,
        knots: int = 256,
        min_count: int = 10,
        max_categories: int = 1000,
    ) -> Encoder:
        """Learn knots and vocabularies.

        Args:
            columns: A table as arrays of equal length; columns that aren't named are ignored.
            numeric, categorical: Names of the features.
            knots: Quantiles kept of each numeric column.
            min_count: A category rarer than this shares id 0.
            max_categories: The most frequent that keep an id of their own.

        Raises:
            DataError: A column is missing, or a numeric one holds something else.
        """
        return cls(
            tuple(Numeric.fit(name, column(columns, name), knots) for name in numeric),
            tuple(
                Category.fit(name, column(columns, name), min_count, max_categories)
                for name in categorical
            ),
        )

    def encode(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Encode a table of any number of rows.

        Returns:
            x_num [N, F_n] float32 and x_cat [N, F_c] int64.

        Raises:
            DataError: A column is missing, its length differs, or it holds no numbers.
        """
        features: tuple[Numeric | Category, ...] = (*self.numeric, *self.categorical)
        raw = [column(columns, feature.name) for feature in features]
        rows = len(raw[0]) if raw else 0
        x_num = np.zeros((rows, len(self.numeric_names)), np.float32)
        x_cat = np.zeros((rows, len(self.categorical)), np.int64)
        flag = len(self.numeric)
        for place, (feature, values) in enumerate(zip(features, raw)):
            if len(values) != rows:
                raise DataError(
                    f"column '{feature.name}' has {len(values)} rows, "
                    f"'{features[0].name}' has {rows}"
                )
            if isinstance(feature, Category):
                x_cat[:, place - len(self.numeric)] = feature.encode(values)
                continue
            x_num[:, place], missing = feature.encode(values)
            if feature.flag:
                x_num[:, flag] = missing
                flag += 1
        return x_num, x_cat

    @property
    def numeric_names(self) -> list[str]:
        """What each column of ``x_num`` is."""
        flags = [f"{feature.name} is missing" for feature in self.numeric if feature.flag]
        return [feature.name for feature in self.numeric] + flags

    @property
    def names(self) -> list[str]:
        """What each feature token is: the columns of ``x_num``, then of ``x_cat``."""
        return self.numeric_names + [feature.name for feature in self.categorical]

    @property
    def categories(self) -> tuple[int, ...]:
        """Number of ids of each column of ``x_cat``, id 0 included."""
        return tuple(len(feature.values) + 1 for feature in self.categorical)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "numeric": [feature.to_dict() for feature in self.numeric],
            "categorical": [feature.to_dict() for feature in self.categorical],
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Encoder:
        """From :meth:`to_dict`."""
        return cls(
            tuple(Numeric(**each) for each in saved["numeric"]),
            tuple(Category(**each) for each in saved["categorical"]),
        )
