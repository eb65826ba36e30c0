"""Which columns are responses, seen after the decision."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from campaigns.drafting.columns import Guess, has, is_infinite, is_number, is_time, tokens
from campaigns.errors import DataError
from campaigns.spec import RESERVED

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")  # spec.Name

OUTCOME_WORDS = frozenset(
    "outcome target label visit visits visited conversion converted convert click clicks clicked "
    "purchase purchases purchased bought order orders ordered sale sales spend spent revenue gmv "
    "profit margin login logins retention retained churn churned signup subscribed response "
    "responded redeemed install installed".split()
)
MONEY_WORDS = frozenset("spend spent revenue gmv profit margin sale sales".split())
COST_WORDS = frozenset("cost costs".split())
PAST_WORDS = frozenset(
    "since last prev previous past history historic lifetime avg mean recency tenure".split()
)
FUTURE_WORDS = frozenset("next after future later within more".split())
WINDOW = re.compile(r"\d+(d|w|h|m|days?|weeks?|months?)")


@dataclass(frozen=True)
class OutcomeGuess:
    """A response: what its values are, and what its name says it is worth."""

    column: str
    kind: str
    why: str
    role: str = "reward"

    @property
    def money(self) -> bool:
        return has(self.column, MONEY_WORDS)


def likely_outcomes(table: pd.DataFrame, treated: str, taken: Collection[str]) -> dict[str, str]:
    """Columns that look like responses, in the table's order, and why.

    A name such as ``visit`` or ``spend`` says so, unless it tells of the past (``days_since_login``) or
    of a window (``spend_90d``) before the treatment's column. What stands between two of them is one.
    """
    columns = [str(column) for column in table.columns]
    free = [column for column in columns if column not in taken and column not in RESERVED]
    start = columns.index(treated)
    named = [c for c in free if _named(c, after=columns.index(c) > start) and not is_time(table[c])]
    if not named:
        return {}
    first, last = columns.index(named[0]), columns.index(named[-1])
    between = [
        c
        for c in free
        if first < columns.index(c) < last
        and not has(c, PAST_WORDS)
        and _unusable(table[c], c) is None
    ]
    return {
        c: "its name says so" if c in named else "it stands between two others"
        for c in free
        if c in named or c in between
    }


def _named(column: str, *, after: bool) -> bool:
    parts = tokens(column)
    if has(column, PAST_WORDS):
        return False
    if has(column, COST_WORDS):
        return after
    windowed = any(WINDOW.fullmatch(part) for part in parts) and not has(column, FUTURE_WORDS)
    response = has(column, OUTCOME_WORDS) or re.fullmatch(r"[yY]\d*", column)
    return bool(response) and (after or not windowed)


def guess_outcomes(
    table: pd.DataFrame, likely: dict[str, str], asked: Sequence[str] | None
) -> tuple[list[OutcomeGuess], list[Guess]]:
    """The outcomes, and the likely columns that are left out (they can't be features).

    Raises:
        DataError: A column that was asked for can't be one.
    """
    chosen = likely if asked is None else dict.fromkeys(asked, "as you said")
    found, out, refused = [], [], []
    for column, why in chosen.items():
        wrong = _unusable(table[column], column)
        if wrong is None:
            found.append(OutcomeGuess(column, _kind(table[column], column), why))
        else:
            out.append(Guess(column, f"looks like an outcome, but {wrong}"))
            refused.append(f"--outcome {column}: {wrong}")
    if asked is not None and refused:
        raise DataError("\n".join(refused))
    if asked is not None:
        out = [
            Guess(c, "looks like an outcome that you left out") for c in likely if c not in asked
        ]
    return _one_cost(found), out


def _one_cost(found: list[OutcomeGuess]) -> list[OutcomeGuess]:
    """The first that is named a cost is the campaign's cost; there can be one."""
    for index, outcome in enumerate(found):
        if has(outcome.column, COST_WORDS) and len(found) > 1:
            cost = OutcomeGuess(outcome.column, outcome.kind, "its name says cost", "cost")
            return [*found[:index], cost, *found[index + 1 :]]
    return found


def _unusable(values: pd.Series, column: str) -> str | None:
    if not NAME.fullmatch(column) or column in RESERVED:
        return f"an outcome's name has lower-case letters, digits and _: call it {slug(column)!r}"
    if not is_number(values) and not pd.api.types.is_bool_dtype(values):
        return "holds words; write 0 and 1, or an amount"
    if is_infinite(values):
        return "holds infinite values; leave unknown ones empty"
    if values.nunique() < 2:
        return "never changes"
    return None


def slug(column: str, fallback: str = "outcome") -> str:
    """A name that a campaign takes, after a column's."""
    text = "_".join(tokens(column))
    text = text if text[:1].isalpha() else f"{fallback}_{text}".rstrip("_")
    return text[:60] if text not in RESERVED else f"{text[:50]}_{fallback}"


def _kind(values: pd.Series, column: str) -> str:
    seen = np.unique(values.dropna().to_numpy(dtype=np.float64))
    if set(seen) <= {0.0, 1.0}:
        return "binary"
    whole = bool((seen >= 0).all() and (seen % 1 == 0).all())
    return "count" if whole and not has(column, MONEY_WORDS | COST_WORDS) else "continuous"


def nested(table: pd.DataFrame, outcomes: Sequence[OutcomeGuess]) -> list[str]:
    """Binary outcomes of which each happens only where the one before did, commonest first."""
    rates = {
        o.column: float(table[o.column].mean())
        for o in outcomes
        if o.kind == "binary" and not table[o.column].isna().any()
    }
    chain: list[str] = []
    for column in sorted(rates, key=lambda name: -rates[name]):
        inside = not chain or bool((table[column] <= table[chain[-1]]).all())
        if inside and (not chain or rates[column] < rates[chain[-1]]):
            chain.append(column)
    return chain if len(chain) > 1 else []
