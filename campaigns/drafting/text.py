"""The draft's text, laid out and commented like the example campaigns."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd
import yaml

from campaigns.drafting.columns import Guess, has_zone
from campaigns.drafting.outcomes import OutcomeGuess, nested, slug
from campaigns.drafting.roles import Roles
from campaigns.drafting.treatments import Treatment

CHANGE = "# CHANGE:"  # marks what only the user can know


def campaign_text(name: str, table: pd.DataFrame, path: str, roles: Roles) -> str:
    """The campaign file, ready to be edited."""
    treatments = _treatments(table, roles)
    parts = [
        f"# Drafted from {_inline(path)} ({len(table):,} rows). Read every comment: each says what was",
        f"# guessed and why. The lines marked '{CHANGE}' hold placeholders that only you can replace.",
        "",
        f"name: {scalar(name)}",
        f"{CHANGE} one sentence that says what is decided, for whom.",
        f"description: Which {' and '.join(treatments).replace('_', ' ')}, if any, to give each unit.",
        "",
        *_unit_and_source(path, roles),
        *_timestamp(table, roles.timestamp),
        *_features(table, roles),
        *_treatment_lines(treatments, roles),
        *_propensity(roles.propensity),
        *_outcomes(table, roles.outcomes),
        *_budget(table, roles),
        *_rest(name),
    ]
    return "\n".join(parts) + "\n"


def scalar(text: str) -> str:
    """A text as YAML: bare where every reader takes it for that text, else in double quotes."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and yaml.safe_load(text) == text:
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)
    return quoted.strip()


def _inline(text: str) -> str:
    """A text inside a comment: in one line, whatever it holds."""
    return text if text.isprintable() else repr(text)


def _sentence(text: str) -> str:
    text = _inline(text)
    return f"{text[0].upper()}{text[1:]}."


def _unit_and_source(path: str, roles: Roles) -> list[str]:
    kind = "csv" if path.endswith((".csv", ".csv.gz")) else "parquet"
    return [
        f"# Who was decided on. {_sentence(roles.unit.why)}",
        f"unit: {scalar(roles.unit.column)}",
        "",
        "# One row a decision. A relative path is looked for beside this file, then in UPDRAFT_HOME/data.",
        "source:",
        f"  kind: {kind}",
        f"  path: {scalar(path)}",
        "",
    ]


def _timestamp(table: pd.DataFrame, timestamp: Guess) -> list[str]:
    lines = [f"# When it was decided. {_sentence(timestamp.why)}"]
    if not has_zone(table[timestamp.column]):
        lines += [
            f"{CHANGE} the table. These times have no zone, and such a table is refused: write UTC, as in",
            "# 2026-01-31T08:30:00Z.",
        ]
    return [*lines, f"timestamp: {scalar(timestamp.column)}", ""]


def _features(table: pd.DataFrame, roles: Roles) -> list[str]:
    lines = [
        "# What was known of a unit when it was decided on. Move a code that is a number (a postcode) to",
        "# categorical, and delete what was known only afterwards: it would give the outcome away.",
        "features:",
    ]
    for kind, columns in (("numeric", roles.numeric), ("categorical", roles.categorical)):
        if columns:
            lines += [f"  {kind}:", *(_feature(table, column) for column in columns)]
    if roles.left_out:
        lines.append("# Not used:")
        lines += [f"#   {_inline(guess.column)}: {_inline(guess.why)}" for guess in roles.left_out]
    return [*lines, ""]


def _feature(table: pd.DataFrame, column: str) -> str:
    missing = float(table[column].isna().mean())
    return f"    - {scalar(column)}" + (f"  # {missing:.1%} missing" if missing else "")


def _treatments(table: pd.DataFrame, roles: Roles) -> dict[str, Treatment]:
    """The treatments by factor name: the column's, made a name that no other column has."""
    named: dict[str, Treatment] = {}
    for treatment in roles.treatments:
        others = {*table.columns, *named} - {treatment.column}
        name = slug(treatment.column, "treatment")
        while name in others:
            name += "_given"
        named[name] = treatment
    return named


def _treatment_lines(treatments: dict[str, Treatment], roles: Roles) -> list[str]:
    lines = ["# What can be given, and what giving it once costs; control costs nothing."]
    if any(not treatment.costs for treatment in treatments.values()):
        lines.append(f"{CHANGE} each cost of 1.0 is a placeholder, in the currency of the budget.")
    lines.append("treatments:")
    for name, treatment in treatments.items():
        lines += [
            f"  {name}:",
            f"    # {_sentence(treatment.why)}",
            f"    column: {scalar(treatment.column)}",
            f"    # {_sentence(treatment.why_control)}",
            f"    control: {scalar(treatment.levels[0])}",
        ]
        if treatment.costs:
            lines.append(f"    # The costs are those in column {_inline(treatment.costs_from)}.")
        lines.append("    levels:")
        lines += [
            f"      {scalar(level)}: {{cost: {cost}}}"
            for level, cost in zip(treatment.levels, _costs(treatment))
        ]
    return [*lines, "arms: all", ""]


def _costs(treatment: Treatment) -> tuple[float, ...]:
    return treatment.costs or (0.0, *[1.0] * (len(treatment.levels) - 1))


def _propensity(guess: Guess) -> list[str]:
    return [
        "# The probability, when it was decided, of what was given: a column, 'uniform' or 'estimate'.",
        f"# {_sentence(guess.why)}",
        f"propensity: {scalar(guess.column)}",
        "",
    ]


def _outcomes(table: pd.DataFrame, outcomes: Sequence[OutcomeGuess]) -> list[str]:
    money = [outcome for outcome in outcomes if outcome.money and outcome.role == "reward"]
    lines = [
        "# What is observed afterwards, and what one of it is worth in the currency of the costs.",
        f"{CHANGE} the values. "
        + (
            "An amount of money counts as 1.0 a unit here, and nothing else counts, lest"
            if money
            else "Each counts as 1.0 here; where one leads to another (a visit to a purchase),"
        ),
        "# the same success be counted twice." if money else "# value only one of them.",
        "outcomes:",
    ]
    for outcome in outcomes:
        settled = (
            "role: cost"
            if outcome.role == "cost"
            else f"value: {1.0 if outcome in money or not money else 0.0}"
        )
        lines.append(f"  {outcome.column}: {{kind: {outcome.kind}, {settled}}}  # {outcome.why}")
    chain = nested(table, outcomes)
    if chain:
        lines += [
            "",
            "# Each of these happened only where the one before did. If it can't be otherwise, say so:",
            f"# sequence: [{', '.join(chain)}]",
        ]
    return [*lines, ""]


def _budget(table: pd.DataFrame, roles: Roles) -> list[str]:
    daily = len(table) / _days(table[roles.timestamp.column])
    costs = [cost for treatment in roles.treatments for cost in _costs(treatment) if cost > 0]
    amount = float(f"{max(daily * min(costs) / 4, 0.01):.2g}")
    return [
        f"{CHANGE} the amount. The table has about {daily:,.0f} decisions a day; this pays for a quarter of",
        "# them at the lowest cost above. min_return 1.0 treats only where the value is at least the cost;",
        "# 0.0 uses the budget up.",
        f"budget: {{per: day, amount: {amount}, min_return: 0.0}}",
        "",
    ]


def _days(times: pd.Series) -> float:
    """Days from the first moment to the last, at least one."""
    if not pd.api.types.is_datetime64_any_dtype(times):
        times = pd.to_datetime(times.astype(str), format="ISO8601", utc=True, errors="coerce")
    length = times.max() - times.min()
    return max(1.0, length.total_seconds() / 86_400) if pd.notna(length) else 1.0


def _rest(name: str) -> list[str]:
    return [
        "# 5% of the decisions are drawn at random, so that effects stay known, on at most a tenth of the",
        "# budget; one unit in a hundred is never treated, to measure the whole against.",
        f"exploration: {{epsilon: 0.05, max_spend_share: 0.1, holdout: 0.01, salt: {scalar(name)}}}",
        "",
        "# 'updraft models' lists the others. The search tries settings before it trains.",
        "model: {name: mtmt, search: true}",
        "",
        "# A new model takes over only where the 95% interval of its gain lies above min_gain.",
        "gate: {metric: policy_value, confidence: 0.95, min_gain: 0.0}",
        "",
        "# Drift is reported where 30% of the features moved by more than 0.2 (stability index).",
        "drift: {features: psi, threshold: 0.2, share: 0.3}",
    ]
