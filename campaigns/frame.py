"""The decision frame: one row a decision, under the same names whatever the table was called.

Columns, in this order: ``decision_id`` str, ``unit_id`` str, ``decided_at`` timestamp[us, UTC],
``arm`` int64, ``propensity`` float64 in (0, 1] (the marginal probability of the arm that was given),
``explored`` bool (drawn at random, not chosen), ``explored_propensity`` float64 (the probability of
this arm given that it was drawn at random; NaN where it was not), ``holdout`` bool,
``policy_version`` and ``model_version`` str or None, one column a treatment factor (the level str;
or the dose that was given float64, whose arm is the nearest of the grid), the features (numeric float64, categorical str or None), the outcomes (float64, NaN = not observed).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from campaigns.errors import CampaignError, DataError, choices
from campaigns.frame_checks import Seen, piece_problems
from campaigns.limits import limit_problems
from campaigns.spec import EVERY, Campaign

DECISION_COLUMNS = (
    "decision_id unit_id decided_at arm propensity explored explored_propensity holdout "
    "policy_version model_version"
).split()

UTC_MICROSECONDS = "datetime64[us, UTC]"
NUMBERS = "a column of words belongs under features.categorical"


def expand_features(campaign: Campaign, table: pd.DataFrame) -> Campaign:
    """The campaign with ``'*'`` in its feature lists replaced by the table's columns.

    Raises:
        CampaignError: A limit asks for a column that isn't among them.
    """
    features = campaign.features
    if EVERY not in features.names:
        return campaign
    named = {campaign.unit, campaign.timestamp, campaign.propensity, *campaign.outcomes}
    named |= {factor.column for factor in campaign.treatments.values()}
    named |= {*features.names, *DECISION_COLUMNS}
    free = [column for column in table.columns if column not in named]
    numbers = [c for c in free if pd.api.types.is_numeric_dtype(table[c])]
    numbers = [c for c in numbers if not pd.api.types.is_bool_dtype(table[c])]
    words = [c for c in free if c not in numbers]
    expanded = {
        "numeric": _expand(features.numeric, numbers),
        "categorical": _expand(features.categorical, words),
    }
    campaign = campaign.model_copy(update={"features": type(features)(**expanded)})
    if problems := list(limit_problems(campaign)):
        raise CampaignError("\n".join(problems))
    return campaign


def _expand(listed: list[str], free: list[str]) -> list[str]:
    return [name for item in listed for name in (free if item == EVERY else [item])]


def decision_frame(table: pd.DataFrame, campaign: Campaign, where: str) -> pd.DataFrame:
    """The table as a decision frame.

    Args:
        table: The log as the user has it, one row a decision.
        campaign: Its campaign, with ``'*'`` features expanded.
        where: How to call the table in an error, such as its path.

    Raises:
        DataError: Everything that is wrong with the table, one line each.
    """
    (frame,) = decision_frames([table], campaign, where)
    return frame


def decision_frames(
    tables: Iterable[pd.DataFrame],
    campaign: Campaign,
    where: str,
    shares: np.ndarray | None = None,
) -> Iterator[pd.DataFrame]:
    """The same of a table that comes a piece at a time: its pieces as decision frames.

    That each decision has an id of its own is only seen within a piece.

    Args:
        tables: Pieces of the log, in its order.
        campaign, where: As in :func:`decision_frame`.
        shares: Each arm's share of the whole log, [A], for ``propensity: estimate``; default: of the piece.

    Raises:
        DataError: What is wrong with a piece as it is reached, then with the whole after its end.
    """
    seen, start = Seen(campaign), 0
    for table in tables:
        if not len(table):
            continue
        problems = _missing_columns(table, campaign)
        if problems:
            raise _wrong(where, problems)
        reader = _Reader(table, campaign, start, shares)
        frame = reader.read()
        problems = [*reader.problems, *piece_problems(frame, campaign, start)]
        seen.add(frame)
        if problems:
            raise _wrong(where, problems if start else [*problems, *seen.problems()])
        start += len(frame)
        yield frame
    if not start:
        raise DataError(f"{where}: has no rows; a campaign needs logged decisions to learn from")
    if problems := list(seen.problems()):
        raise _wrong(where, problems)


def arm_shares(tables: Iterable[pd.DataFrame], campaign: Campaign) -> np.ndarray:
    """Each arm's share of the rows, [A]; of the tables only the factors' columns are read."""
    readers = (_Reader(table, campaign) for table in tables)
    counts = sum(np.bincount(each.arms(), minlength=len(campaign.arm_table)) for each in readers)
    return np.asarray(counts / max(np.sum(counts), 1))


def _wrong(where: str, problems: list[str]) -> DataError:
    return DataError("\n".join(f"{where}: {problem}" for problem in dict.fromkeys(problems)))


def required_columns(campaign: Campaign) -> dict[str, str]:
    """Every column that the campaign's table must have, and the campaign key that asks for it."""
    columns = {campaign.unit: "unit", campaign.timestamp: "timestamp"}
    columns |= dict.fromkeys(campaign.features.numeric, "features.numeric")
    columns |= dict.fromkeys(campaign.features.categorical, "features.categorical")
    columns |= {f.column: f"treatments.{name}.column" for name, f in campaign.treatments.items()}
    columns |= {name: f"outcomes.{name}" for name in campaign.outcomes}
    if campaign.propensity not in ("uniform", "estimate"):
        columns[campaign.propensity] = "propensity"
    return columns


def _missing_columns(table: pd.DataFrame, campaign: Campaign) -> list[str]:
    present = [str(column) for column in table.columns]
    problems = []
    for column, key in required_columns(campaign).items():
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {choices(sorted(present))}"
            problems.append(f"column '{column}' ({key}) is missing; {hint}")
    return problems


class _Reader:
    """Reads one table column by column, and keeps what is wrong instead of stopping at the first."""

    def __init__(
        self,
        table: pd.DataFrame,
        campaign: Campaign,
        start: int = 0,
        shares: np.ndarray | None = None,
    ) -> None:
        self.table, self.campaign, self.start, self.shares = table, campaign, start, shares
        self.problems: list[str] = []

    def arms(self) -> np.ndarray:
        """The arm of each row, [N]."""
        return self._arms({name: self._levels(name) for name in self.campaign.treatments})

    def read(self) -> pd.DataFrame:
        campaign, table, count = self.campaign, self.table, len(self.table)
        levels = {name: self._levels(name) for name in campaign.treatments}
        arm = self._arms(levels)
        holdout = self._flag("holdout", default=False)
        explored = self._flag("explored", default=True) & ~holdout
        propensity = self._propensity(arm)
        columns = {
            "decision_id": self._decision_ids(count),
            "unit_id": self._units(),
            "decided_at": self._timestamps(),
            "arm": arm,
            "propensity": propensity,
            "explored": explored,
            "explored_propensity": self._explored_propensity(explored, propensity),
            "holdout": holdout,
            "policy_version": self._text("policy_version"),
            "model_version": self._text("model_version"),
            **levels,
            **{name: self._numbers(name) for name in campaign.features.numeric},
            **{name: words(table[name]) for name in campaign.features.categorical},
            **{name: self._numbers(name) for name in campaign.outcomes},
        }
        return pd.DataFrame(columns)

    def _decision_ids(self, count: int) -> np.ndarray:
        if "decision_id" in self.table.columns:
            return self.table["decision_id"].astype(str).to_numpy(dtype=object)
        rows = range(self.start, self.start + count)
        return np.array([f"{self.campaign.name}-log-{row:09d}" for row in rows], dtype=object)

    def _units(self) -> np.ndarray:
        column = self.table[self.campaign.unit]
        missing = int(column.isna().sum())
        if missing:
            self.problems.append(
                f"column '{self.campaign.unit}' (unit): {missing} rows have no unit; every decision has one"
            )
        return unit_ids(column)

    def _timestamps(self) -> pd.Series:
        name = self.campaign.timestamp
        column = self.table[name].reset_index(drop=True)
        empty = pd.Series(pd.NaT, index=range(len(column)), dtype=UTC_MICROSECONDS)
        right = "write UTC timestamps such as 2026-01-31T08:30:00Z"
        if not pd.api.types.is_datetime64_any_dtype(column):
            text = column.astype(str)
            try:
                parsed = pd.to_datetime(text, format="ISO8601")
            except (ValueError, TypeError):
                # Mixed offsets (or no time at all): parse as UTC to tell the two apart.
                parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
            column = parsed
        if column.isna().any():
            row = int(np.flatnonzero(column.isna())[0])
            seen = self.table[name].iloc[row]
            self.problems.append(
                f"column '{name}' (timestamp), row {self.start + row}: {seen!r} is no time; {right}"
            )
            return empty
        if column.dt.tz is None:
            self.problems.append(
                f"column '{name}' (timestamp): times such as {column.iloc[0]} have no zone; {right}"
            )
            return empty
        return column.dt.tz_convert("UTC").astype(UTC_MICROSECONDS)

    def _levels(self, factor: str) -> np.ndarray:
        spec = self.campaign.treatments[factor]
        if spec.dose is None:
            return words(self.table[spec.column])
        where = f"column '{spec.column}' (treatments.{factor})"
        doses = self._numbers(spec.column, "a dose is a number")
        missing = int(np.isnan(doses).sum())
        if missing:
            self.problems.append(
                f"{where}: {missing} rows have no dose; control is {spec.dose.min:g}"
            )
        outside = (doses < spec.dose.min) | (doses > spec.dose.max)
        if outside.any():
            seen = doses[outside][0]
            self.problems.append(
                f"{where}: {int(outside.sum())} rows lie outside the dose's {spec.dose.min:g} to "
                f"{spec.dose.max:g}, such as {seen:g}; widen dose.min and dose.max, or drop them"
            )
        return doses

    def _named(self, factor: str, column: np.ndarray) -> np.ndarray:
        """Names of the levels that a column means, [N]; what is no level is a problem."""
        spec = self.campaign.treatments[factor]
        if spec.dose is not None:
            return spec.dose.nearest(np.nan_to_num(column, nan=spec.dose.min))
        for level in pd.unique(column):
            if level not in spec.levels:
                rows = int(np.sum(column == level) if level is not None else pd.isna(column).sum())
                self.problems.append(
                    f"column '{spec.column}' (treatments.{factor}): {level!r} in {rows} rows is no "
                    f"level; the levels are {choices(spec.ordered_levels)}"
                )
        return column

    def _arms(self, levels: dict[str, np.ndarray]) -> np.ndarray:
        table = self.campaign.arm_table
        named = [self._named(factor, column) for factor, column in levels.items()]
        codes = pd.MultiIndex.from_arrays(named)
        index = pd.MultiIndex.from_tuples(table.level_names)
        arm = index.get_indexer(codes)
        if (arm < 0).any() and not self.problems:
            row = int(np.flatnonzero(arm < 0)[0])
            self.problems.append(
                f"row {self.start + row}: {tuple(codes[row])} is no arm that 'arms' allows"
            )
        return np.maximum(arm, 0).astype(np.int64)

    def _propensity(self, arm: np.ndarray) -> np.ndarray:
        name, count = self.campaign.propensity, len(self.campaign.arm_table)
        if name == "uniform":
            return np.full(len(arm), 1.0 / count)
        if name == "estimate":
            own = np.bincount(arm, minlength=count) / len(arm)
            return (own if self.shares is None else self.shares)[arm]
        return self._numbers(name)

    def _explored_propensity(self, explored: np.ndarray, propensity: np.ndarray) -> np.ndarray:
        if "explored_propensity" in self.table.columns:
            return np.where(explored, self._numbers("explored_propensity"), np.nan)
        return np.where(explored, propensity, np.nan)

    def _flag(self, name: str, *, default: bool) -> np.ndarray:
        if name not in self.table.columns:
            return np.full(len(self.table), default)
        column = self.table[name]
        if not set(pd.unique(column.dropna())) <= {True, False} or column.isna().any():
            self.problems.append(f"column '{name}': must hold true or false in every row")
            return np.full(len(self.table), default)
        return column.to_numpy(dtype=bool)

    def _text(self, name: str) -> np.ndarray:
        if name in self.table.columns:
            return words(self.table[name])
        return np.full(len(self.table), None, dtype=object)

    def _numbers(self, name: str, right: str = NUMBERS) -> np.ndarray:
        column = self.table[name]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            converted = pd.to_numeric(column, errors="coerce")
            wrong = converted.isna() & column.notna()
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                self.problems.append(
                    f"column '{name}', row {self.start + row}: {column.iloc[row]!r} is no number; {right}"
                )
            column = converted
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        infinite = int(np.isinf(values).sum())
        if infinite:
            self.problems.append(
                f"column '{name}': {infinite} infinite values; leave unknown ones empty instead"
            )
        return values


def unit_ids(column: pd.Series) -> np.ndarray:
    """Unit ids as strings; whole numbers without a decimal point, however they were read."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype(str).to_numpy(dtype=object)


def words(column: pd.Series) -> np.ndarray:
    """A column as strings, None where it is missing."""
    text: np.ndarray = column.astype(str).to_numpy(dtype=object, copy=True)
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        text = column.astype("Int64").astype(str).to_numpy(dtype=object, copy=True)
    text[column.isna().to_numpy()] = None
    return text
