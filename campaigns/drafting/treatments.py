"""Which column says what was given, which of its levels is control, and what the levels cost."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from campaigns.drafting.columns import (
    Guess,
    has,
    is_countable,
    is_infinite,
    is_number,
    is_time,
    listed,
    tokens,
)
from campaigns.drafting.outcomes import OUTCOME_WORDS
from campaigns.errors import DataError, choices
from campaigns.frame import words

FEW_LEVELS = 20  # of a treatment that nobody named
MOST_LEVELS = 100  # of one that somebody named

SURE_WORDS = frozenset("treatment treat treated arm variant".split())
OFFER_WORDS = frozenset(
    "bonus email mail offer coupon discount promo promotion incentive voucher message push".split()
)
MAYBE_WORDS = frozenset("group segment test action experiment assignment".split())
CONTROL_WORDS = (
    "control none no nothing untreated placebo baseline holdout off false 0 ctrl".split()
)


@dataclass(frozen=True)
class Treatment:
    """A column of treatments.

    Attributes:
        column: Its name.
        levels: What was given, control first, as the decision frame writes it.
        costs: What each level costs, where the table tells; else empty.
        why: Why this column.
        why_control: Why this level is control.
        costs_from: The column that tells the costs.
    """

    column: str
    levels: tuple[str, ...]
    why: str
    why_control: str
    costs: tuple[float, ...] = ()
    costs_from: str = ""


def guess_treatments(
    table: pd.DataFrame, asked: str | None, control: str | None, taken: Collection[str]
) -> list[Treatment]:
    """The column of what was given, or the several that look like it equally; empty if none does.

    Raises:
        DataError: The column that was asked for can't be a treatment, or never holds that control.
    """
    if asked is not None:
        return [_treatment(table[asked], control, "as you said")]
    ranks = {str(c): _rank(table[c]) for c in table.columns if c not in taken}
    top = max(ranks.values(), default=0)
    if top == 0:
        return []
    others = [column for column, rank in ranks.items() if 0 < rank < top]
    why = "its name and its few values look like a treatment"
    if others:
        why += f"; {listed(others)} looks a little like one, too"
    return [_treatment(table[c], control, why) for c, rank in ranks.items() if rank == top]


def _rank(column: pd.Series) -> int:
    """How much a column looks like a treatment; 0 is not at all."""
    name = str(column.name)
    named = 4 if has(name, SURE_WORDS) else 2 if has(name, OFFER_WORDS) else 0
    if not named and not has(name, MAYBE_WORDS):
        return 0
    if has(name, OUTCOME_WORDS) or not is_countable(column):
        return 0
    if is_time(column) or not 2 <= column.nunique() <= FEW_LEVELS:
        return 0
    control = named_control(words(column.dropna()))
    if not named and control is None:
        return 0  # a group or segment without control is a feature, such as an age group
    exact, missing = len(tokens(name)) == 1, bool(column.isna().any())
    return max(1, named + 2 * exact + (control is not None) - missing)


def named_control(levels: Iterable[str]) -> str | None:
    """The level whose name says that nothing was given."""
    levels = list(dict.fromkeys(levels))
    for word in CONTROL_WORDS:
        for level in levels:
            text = level.strip().lower()
            if text == word or re.match(rf"{word}[ _-]", text) or (word == "0" and text == "0.0"):
                return level
    return None


def _treatment(column: pd.Series, control: str | None, why: str) -> Treatment:
    name = str(column.name)
    counts = _level_counts(column)
    why_control = "as you said"
    if control is None:
        control, why_control = named_control(counts.index), "its name says that nothing was given"
    if control is None:
        control = str(counts.index[0])
        why_control = "the most frequent; no level has a name such as none or control"
    if control not in counts.index:
        raise DataError(
            f"--control {control}: column '{name}' has no such value; choose from {choices(counts.index)}"
        )
    others = sorted((level for level in counts.index if level != control), key=_by_number)
    return Treatment(name, (control, *others), why, why_control)


def _by_number(level: str) -> tuple[float, str]:
    """Sorts 2 before 10, and words after numbers."""
    try:
        return float(level), level
    except ValueError:
        return np.inf, level


def _level_counts(column: pd.Series) -> pd.Series:
    """Rows by level, the most frequent first."""
    other = "--treatment names another column"
    name, missing = column.name, int(column.isna().sum())
    if missing:
        raise DataError(
            f"column '{name}': {missing:,} rows don't say what was given (in CSV, None and NA read as "
            f"empty, too); write the control's name there, such as no_treatment ({other})"
        )
    if not is_countable(column) or column.nunique() > MOST_LEVELS:
        many = f"{column.nunique():,} different values" if is_countable(column) else "lists"
        raise DataError(
            f"column '{name}': holds {many}; a treatment has a few levels, such as none and coins "
            f"({other})"
        )
    counts = pd.Series(words(column)).value_counts()
    if len(counts) < 2:
        raise DataError(
            f"column '{name}': every row was given {counts.index[0]!r}; an effect needs rows "
            f"that were given something else ({other})"
        )
    return counts


def with_costs(
    treatment: Treatment, table: pd.DataFrame, columns: Iterable[str]
) -> tuple[Treatment, Guess | None]:
    """The treatment with its levels' costs, if one of the columns is a fixed number for each level."""
    given = words(table[treatment.column])
    for name in columns:
        costs = _fixed(table[name], given, treatment.levels)
        if costs:
            told = Guess(name, "the same in every row of a level: read as what the level costs")
            return replace(treatment, costs=costs, costs_from=name), told
    return treatment, None


def _fixed(column: pd.Series, given: np.ndarray, levels: tuple[str, ...]) -> tuple[float, ...]:
    if not is_number(column) or column.isna().any() or is_infinite(column):
        return ()
    by_level = column.astype(float).groupby(given).agg(["min", "max"]).loc[list(levels)]
    costs = by_level["min"].to_numpy()
    if (by_level["max"] != costs).any() or costs[0] != 0 or (costs < 0).any() or not costs.any():
        return ()
    return tuple(float(cost) for cost in costs)


def propensity(table: pd.DataFrame, treatments: list[Treatment], taken: Collection[str]) -> Guess:
    """The column with the probability of what was given, or how to do without one."""
    for column in map(str, table.columns):
        parts = tokens(column)
        named = {"propensity", "pscore"} & set(parts) or parts in (["prob"], ["probability"])
        if named and column not in taken and column != "explored_propensity":
            values = table[column]
            if is_number(values) and bool(values.between(0, 1, inclusive="right").all()):
                return Guess(column, "its name says so, and it lies in (0, 1]")
    arms = int(np.prod([len(t.levels) for t in treatments]))
    shares = table.groupby([t.column for t in treatments]).size().to_numpy() / len(table)
    tolerance = 4 * np.sqrt((1 - 1 / arms) / arms / len(table))
    if len(shares) == arms and bool((np.abs(shares - 1 / arms) <= tolerance).all()):
        return Guess("uniform", "no column says it, and all were given about equally often")
    told = ", ".join(f"{share:.0%}" for share in shares[:6])
    return Guess("estimate", f"no column says it, and the shares differ ({told}): they are used")
