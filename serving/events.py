"""The event store: every decision before it is answered, every outcome that is reported.

What is read back for learning and for people is in :mod:`serving.history`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import pandas as pd
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from campaigns.errors import DataError, EnvironmentProblem, choices
from campaigns.spec import Campaign
from serving import history, ledger, tables
from serving.ledger import Ledger
from serving.outcomes import store_outcomes
from serving.records import Decision, OutcomeRecord, OutcomeReport
from serving.transaction import Transaction, fetch


class EventStore:
    """Decisions, outcomes and requests in SQLite or PostgreSQL. Open one a process; thread-safe.

    Every method raises EnvironmentProblem where the database is away, full or locked for too long.

    Args:
        url: SQLAlchemy URL, as :func:`serving.tables.open_engine` takes it.
    """

    def __init__(self, url: str) -> None:
        self._engine = tables.open_engine(url)
        self._write_engine = self._engine.execution_options(write=True)

    def close(self) -> None:
        self._engine.dispose()

    def register(self, campaign: Campaign) -> None:
        """Make a campaign known, or its outcomes anew: before its first decision, and at a change."""
        kinds = json.dumps({name: outcome.kind for name, outcome in campaign.outcomes.items()})
        with self._begin() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            insertion = dialect.insert(tables.campaigns)
            known = insertion.on_conflict_do_update(
                index_elements=["campaign"], set_={"outcomes": insertion.excluded.outcomes}
            )
            connection.execute(known, {"campaign": campaign.name, "outcomes": kinds})

    @contextmanager
    def transaction(self, campaign: str) -> Iterator[Transaction]:
        """Read and write for one campaign, alone: other writers of that campaign wait.

        What is added is durable once the block is left, and nothing is if it raises.

        Raises:
            DataError: The campaign was never registered, or a decision id is stored already.
        """
        with self._begin() as connection:
            writer = Transaction(connection, campaign)
            yield writer
            writer.flush()

    def record_decisions(
        self, decisions: Sequence[Decision], request_id: str | None = None
    ) -> list[Decision]:
        """Store decisions, all or none; the same request id again returns the first ones.

        Args:
            decisions: Of one registered campaign.
            request_id: Whoever repeats it gets what was stored first.

        Raises:
            DataError: A decision id that is stored already, or a campaign that isn't registered.
        """
        names = sorted({decision.campaign for decision in decisions})
        if not names:
            return []
        if len(names) > 1:
            raise DataError(f"decisions: are of {choices(names)}; give those of one campaign")
        with self.transaction(names[0]) as writer:
            repeated = None if request_id is None else writer.find(request_id, "")
            if repeated is not None:
                return repeated
            writer.add(decisions, request_id)
        return list(decisions)

    def record_outcomes(self, records: Sequence[OutcomeRecord]) -> OutcomeReport:
        """Store outcomes: late, repeated and in any order. Every good one is kept, whatever the others.

        The first write of a (decision, outcome) counts, unless a later one says ``correct``.
        """
        with self._begin() as connection:
            return store_outcomes(connection, records)

    def decisions(self, decision_ids: Sequence[str]) -> list[Decision]:
        """The stored decisions with these ids, in that order; unknown ids are left out."""
        with self._read() as connection:
            return fetch(connection, decision_ids)

    def units_of(self, campaign: str, epoch: str) -> set[str]:
        """The units that were decided on in an epoch."""
        row = tables.decisions.c
        query = select(row.unit_id).where(row.campaign == campaign, row.epoch == epoch).distinct()
        with self._read() as connection:
            return set(connection.scalars(query))

    def ledger(self, campaign: str, period: str | None = None) -> Ledger:
        """What the period (or all time) has seen so far."""
        with self._read() as connection:
            return ledger.read(connection, campaign, period)

    def ledger_of(self, campaign: Campaign, now: datetime) -> Ledger:
        """All that the campaign's decisions of this moment go by, limits included."""
        with self._read() as connection:
            return ledger.ledger_of(connection, campaign, now)

    def by_arm(self, campaign: str) -> dict[str, int]:
        """How often each arm was given so far."""
        with self._read() as connection:
            return ledger.by_arm(connection, campaign)

    def decisions_frame(
        self, campaign: Campaign, *, now: datetime, since: datetime | None = None
    ) -> pd.DataFrame:
        """As :func:`serving.history.decisions_frame`."""
        with self._read() as connection:
            return history.decisions_frame(connection, campaign, now=now, since=since)

    def summary(self, campaign: str, since: datetime | None = None) -> list[history.Summary]:
        """As :func:`serving.history.summary`."""
        with self._read() as connection:
            return history.summary(connection, campaign, since)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with _explained(), tables.turn(self._engine), self._write_engine.begin() as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _explained(), self._engine.connect() as connection:
            yield connection


@contextmanager
def _explained() -> Iterator[None]:
    """A database that fails says so in one sentence."""
    try:
        yield
    except (DBAPIError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise EnvironmentProblem(
            f"event store: {reason}; look whether the database runs, has room and may be written"
        ) from error
