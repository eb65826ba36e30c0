"""Every column of a table in the role that it is likely to play."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from campaigns.drafting.columns import (
    Guess,
    has,
    has_zone,
    is_countable,
    is_infinite,
    is_number,
    is_time,
    listed,
    tokens,
)
from campaigns.drafting.outcomes import (
    OutcomeGuess,
    guess_outcomes,
    likely_outcomes,
)
from campaigns.drafting.treatments import Treatment, guess_treatments, propensity, with_costs
from campaigns.errors import DataError, choices
from campaigns.spec import EVERY, RESERVED

MOST_CATEGORIES = 1000
SHOWN = 20  # columns that an error lists

UNIT_WORDS = frozenset(
    "unit user player customer client member rider driver visitor subscriber account household "
    "person patient passenger buyer shopper guest".split()
)
ID_WORDS = ("id", "uuid", "guid", "key")
OTHER_IDS = frozenset(
    "decision event session order request item product transaction message impression".split()
)
READ_AS_THEY_ARE = frozenset(
    "decision_id explored explored_propensity holdout policy_version model_version".split()
)
TIME_WORDS = frozenset("timestamp time date at ts decided datetime".split())


@dataclass(frozen=True)
class Roles:
    """What each column is taken for."""

    unit: Guess
    timestamp: Guess
    treatments: list[Treatment]
    propensity: Guess
    outcomes: list[OutcomeGuess]
    numeric: list[str]
    categorical: list[str]
    left_out: list[Guess]


@dataclass(frozen=True)
class Asked:
    """The roles that a user has fixed."""

    unit: str | None = None
    timestamp: str | None = None
    treatment: str | None = None
    control: str | None = None
    outcomes: Sequence[str] | None = None

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(flag, column) of each."""
        named = [("unit", self.unit), ("timestamp", self.timestamp), ("treatment", self.treatment)]
        named += [("outcome", column) for column in self.outcomes or ()]
        return [(f"--{flag}", column) for flag, column in named if column is not None]


def guess_roles(table: pd.DataFrame, asked: Asked) -> Roles:
    """The likely role of every column.

    Raises:
        DataError: A role that a campaign can't do without fits no column, or one was asked for that
            can't have it; one line each, with the flag that helps.
    """
    _check(table, asked)
    taken = {column for _, column in asked.columns}
    timestamp = _timestamp(table, asked.timestamp, taken)
    taken |= {timestamp.column} if timestamp else set()
    unit = _unit(table, asked.unit, taken)
    taken |= {unit.column} if unit else set()
    treatments = guess_treatments(table, asked.treatment, asked.control, taken)
    if unit is None or timestamp is None or not treatments:
        raise DataError(_missing(table, unit, timestamp, treatments))
    taken |= {treatment.column for treatment in treatments}
    given = propensity(table, treatments, taken)
    taken.add(given.column)

    likely = likely_outcomes(table, treatments[0].column, taken - set(asked.outcomes or ()))
    left_out: list[Guess] = []
    if len(treatments) == 1:
        unasked = [column for column in likely if column not in (asked.outcomes or ())]
        treatments[0], told = with_costs(treatments[0], table, unasked)
        if told:
            left_out.append(told)
            del likely[told.column]
    outcomes, out = guess_outcomes(table, likely, asked.outcomes)
    left_out += out
    if not any(outcome.role == "reward" for outcome in outcomes):
        hint = "".join(f"; '{guess.column}' {guess.why}" for guess in out)
        raise DataError(
            f"no column looks like an outcome, such as visit or spend{hint}; say which with --outcome\n"
            + _columns(table)
        )
    taken |= {o.column for o in outcomes} | {guess.column for guess in left_out}
    numeric, categorical, out = _features(table, taken)
    if not numeric and not categorical:
        raise DataError("no column is left that could be a feature; a model needs at least one")
    return Roles(unit, timestamp, treatments, given, outcomes, numeric, categorical, left_out + out)


def _check(table: pd.DataFrame, asked: Asked) -> None:
    """Refuse a table, or flags, that nothing can be made of."""
    if table.empty:
        raise DataError("the table has no rows; a campaign is drafted from logged decisions")
    columns = list(table.columns)
    if not all(isinstance(column, str) for column in columns):
        raise DataError("the table's columns are numbers; a header must name them")
    problems = []
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        problems.append(f"the table has several columns called {choices(twice)}; rename them")
    flags: dict[str, str] = {}
    for flag, column in asked.columns:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f"did you mean '{near[0]}'?" if near else _columns(table)
            problems.append(f"{flag} {column}: is no column; {hint}")
        elif column in flags:
            problems.append(f"{flag} {column}: is {flags[column]} already; a column has one role")
        flags[column] = flag
    if problems:
        raise DataError("\n".join(problems))


def _missing(
    table: pd.DataFrame, unit: Guess | None, timestamp: Guess | None, treatments: list[Treatment]
) -> str:
    """A line for each role that nothing fits, and what there is."""
    lines = []
    if unit is None:
        lines.append(
            "no column says who was decided on, such as player_id; say which with --unit, "
            "or add one (the row's number will do)"
        )
    if timestamp is None:
        lines.append(
            "no column says when, in times such as 2026-01-31T08:30:00Z; say which with --timestamp, "
            "or add one"
        )
    if not treatments:
        lines.append(
            "no column looks like a treatment, such as bonus with the values none and coins; "
            "say which with --treatment"
        )
    return "\n".join([*lines, _columns(table)])


def _columns(table: pd.DataFrame) -> str:
    shown = ", ".join(map(repr, table.columns[:SHOWN]))
    more = len(table.columns) - SHOWN
    return f"the table has {shown}" + (f" and {more} more" if more > 0 else "")


def _timestamp(table: pd.DataFrame, asked: str | None, taken: Collection[str]) -> Guess | None:
    if asked is not None:
        if not is_time(table[asked]):
            seen = table[asked].dropna().head(1).tolist()
            raise DataError(
                f"--timestamp {asked}: holds {seen[0] if seen else 'nothing'!r}; "
                "write times such as 2026-01-31T08:30:00Z"
            )
        return Guess(asked, "as you said")
    found = [c for c in table.columns if c not in taken and is_time(table[c])]
    if not found:
        return None
    best = min(found, key=lambda c: (not has_zone(table[c]), not has(c, TIME_WORDS)))
    others = [column for column in found if column != best]
    return Guess(best, "it holds times" + (f", as do {listed(others)}" if others else ""))


def _unit(table: pd.DataFrame, asked: str | None, taken: Collection[str]) -> Guess | None:
    if asked is not None:
        return Guess(asked, "as you said")
    ids = [c for c in table.columns if c not in taken and _may_be_id(table[c])]
    best = max(ids, key=_names_unit, default=None)
    if best is not None and _names_unit(best):
        return Guess(best, f"its name says who; {table[best].nunique():,} of them")
    for column in ids:
        if table[column].is_unique and not has(column, OTHER_IDS):
            return Guess(column, "it differs in every row, so that each row counts as a unit")
    return None


def _names_unit(column: str) -> int:
    parts = tokens(column)
    if not parts or has(column, OTHER_IDS):
        return 0
    who = any(part.removesuffix("id") in UNIT_WORDS for part in parts)
    is_id = parts[-1].endswith(ID_WORDS)
    return (1 + 2 * who) if is_id else 2 * (who and len(parts) == 1)


def _may_be_id(column: pd.Series) -> bool:
    if column.isna().any() or is_time(column) or not is_countable(column):
        return False
    text = pd.api.types.infer_dtype(column, skipna=True) == "string"
    return (text or pd.api.types.is_integer_dtype(column)) and column.nunique() > 1


def _features(
    table: pd.DataFrame, taken: Collection[str]
) -> tuple[list[str], list[str], list[Guess]]:
    """Numeric and categorical features, and what is left out."""
    numeric, categorical, out = [], [], []
    for column in table.columns:
        if column in taken:
            continue
        why = _no_feature(table[column])
        if why:
            out.append(Guess(column, why))
        elif is_number(table[column]):
            numeric.append(column)
        else:
            categorical.append(column)
    return numeric, categorical, out


def _no_feature(column: pd.Series) -> str | None:
    name = str(column.name)
    if name in READ_AS_THEY_ARE:
        return "read as what Updraft itself logs under this name"
    if name in RESERVED:
        return "a name that Updraft keeps for itself; rename it to use it"
    if name == EVERY:
        return "its name means 'every column' in a campaign"
    if is_time(column):
        return "holds times; make it a number, such as days since"
    if not is_countable(column):
        return "holds lists"
    distinct = column.nunique()
    if distinct < 2 and not (distinct == 1 and column.isna().any()):
        return "is empty" if distinct == 0 else "never changes"
    if is_number(column):
        if is_infinite(column):
            return "holds infinite values; leave unknown ones empty"
        return "an id, by its name" if tokens(name)[-1:] == ["id"] and distinct > 100 else None
    if distinct > MOST_CATEGORIES or distinct > max(20, len(column) / 2):
        return f"has {distinct:,} different values, like an id or free text"
    return None
