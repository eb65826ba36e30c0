"""Outcomes into the event store: each item checked by itself, every good one appended."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, insert, select

from campaigns.errors import choices
from serving import tables
from serving.records import OutcomeRecord, OutcomeReport, Problem, to_micros

CHUNK = 5_000

Kinds = Mapping[str, str]  # outcome name -> binary, count or continuous


def store_outcomes(connection: Connection, records: Sequence[OutcomeRecord]) -> OutcomeReport:
    """Append the good ones, in the order given, and say what is wrong with the others."""
    kinds = _kinds(connection, {record.decision_id for record in records})
    problems, good = [], []
    for index, record in enumerate(records):
        problem = _problem(index, record, kinds.get(record.decision_id))
        if problem:
            problems.append(problem)
        else:
            good.append(record)
    repeated = _repeated(connection, good)
    if good:
        connection.execute(insert(tables.outcomes), _rows(good))
    return OutcomeReport(len(good), repeated, tuple(problems))


def _kinds(connection: Connection, decision_ids: set[str]) -> dict[str, Kinds]:
    """The outcomes that each known decision may have."""
    parsed: dict[str, Kinds] = {}
    found: dict[str, Kinds] = {}
    decision, campaign = tables.decisions.c, tables.campaigns.c
    query = select(decision.decision_id, campaign.outcomes).join(
        tables.campaigns, campaign.campaign == decision.campaign
    )
    for chunk in _chunks(decision_ids):
        for decision_id, text in connection.execute(query.where(decision.decision_id.in_(chunk))):
            if text not in parsed:
                parsed[text] = json.loads(text)
            found[decision_id] = parsed[text]
    return found


def _problem(index: int, record: OutcomeRecord, kinds: Kinds | None) -> Problem | None:
    if kinds is None:
        return Problem(index, "decision_id", f"{record.decision_id!r} is no decision of ours")
    if record.outcome not in kinds:
        return Problem(
            index, "outcome", f"{record.outcome!r} is no outcome; choose from {choices(kinds)}"
        )
    wrong = _wrong_value(record.value, kinds[record.outcome])
    if wrong:
        return Problem(index, "value", f"{record.outcome!r} {wrong}, not {record.value}")
    if record.observed_at is not None and record.observed_at.tzinfo is None:
        return Problem(
            index, "observed_at", "has no time zone; write UTC, such as 2026-01-31T08:30:00Z"
        )
    return None


def _wrong_value(value: float, kind: str) -> str | None:
    if not math.isfinite(value):
        return "is a finite number"
    if kind == "binary" and value not in (0, 1):
        return "is binary: 0 or 1"
    if kind == "count" and (value < 0 or value % 1):
        return "is a count: a whole number, 0 or more"
    return None


def _repeated(connection: Connection, records: Sequence[OutcomeRecord]) -> int:
    """How many of these don't change what counts: reported before, and no correction."""
    row = tables.outcomes.c
    seen: set[tuple[str, str]] = set()
    query = select(row.decision_id, row.outcome).distinct()
    for chunk in _chunks({record.decision_id for record in records}):
        seen.update(
            tuple(key) for key in connection.execute(query.where(row.decision_id.in_(chunk)))
        )
    repeated = 0
    for record in records:
        key = (record.decision_id, record.outcome)
        repeated += key in seen and not record.correct
        seen.add(key)
    return repeated


def _rows(records: Iterable[OutcomeRecord]) -> list[dict[str, object]]:
    now = time.time_ns() // 1000
    return [
        {
            "decision_id": record.decision_id,
            "outcome": record.outcome,
            "value": float(record.value),
            "observed_at": now if record.observed_at is None else to_micros(record.observed_at),
            "recorded_at": now,
            "correct": record.correct,
        }
        for record in records
    ]


def _chunks(ids: set[str]) -> Iterable[list[str]]:
    ordered = sorted(ids)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))
