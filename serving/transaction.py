"""One campaign's writes: decisions and the requests that asked for them, all or none."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from campaigns.errors import DataError, choices
from campaigns.spec import Campaign
from serving import ledger, tables
from serving.ledger import Ledger
from serving.records import Decision, from_micros, to_micros

CHUNK = 5_000  # ids in one IN (...); SQLite takes 32,766 at most

# Built once: building a statement costs more than running it.
_NEW_DECISIONS = insert(tables.decisions)
_NEW_REQUESTS = insert(tables.requests)
_REQUEST = select(tables.requests.c.body, tables.requests.c.decision_ids).where(
    tables.requests.c.campaign == bindparam("campaign"),
    tables.requests.c.request_id == bindparam("request_id"),
)
# SQLite's transaction is exclusive already, and ignores FOR UPDATE.
_LOCK = (
    select(tables.campaigns.c.campaign)
    .where(tables.campaigns.c.campaign == bindparam("name"))
    .with_for_update()
)


class RequestConflict(DataError):
    """A request id came again with another body."""


class Transaction:
    """Writes with the campaign's row locked: other writers of the campaign wait.

    What is added is written when :meth:`flush` is called, in as few statements as there are tables.

    Raises:
        DataError: The campaign was never registered.
    """

    def __init__(self, connection: Connection, campaign: str) -> None:
        self._connection, self.campaign = connection, campaign
        self._decisions: list[Decision] = []
        self._requests: dict[str, tuple[str, list[Decision]]] = {}
        if connection.scalar(_LOCK, {"name": campaign}) is None:
            known = connection.scalars(select(tables.campaigns.c.campaign)).all()
            raise DataError(
                f"campaign {campaign!r}: is not known to the event store, which has "
                f"{choices(sorted(known))}; register it first"
            )

    def ledger(self, period: str) -> Ledger:
        """What the period had seen before this transaction."""
        return ledger.read(self._connection, self.campaign, period)

    def ledger_of(self, campaign: Campaign, now: datetime) -> Ledger:
        """All that the campaign's decisions of this moment go by, limits included."""
        return ledger.ledger_of(self._connection, campaign, now)

    def find(self, request_id: str, body: str) -> list[Decision] | None:
        """The decisions that this request got before, or None.

        Raises:
            RequestConflict: Another body came under this id.
        """
        known = self._requests.get(request_id) or self._stored(request_id)
        if known is None:
            return None
        if known[0] != body:
            raise RequestConflict(
                f"request_id {request_id!r}: was used before with another body; "
                "repeat a request exactly, or give a new one a new id"
            )
        return known[1]

    def add(
        self, decisions: Sequence[Decision], request_id: str | None = None, body: str = ""
    ) -> None:
        """Store decisions, and the request that they answer (its id, and a hash of its body)."""
        self._decisions += decisions
        if request_id is not None:
            self._requests[request_id] = (body, list(decisions))

    def flush(self) -> None:
        """Write what was added, and count it in the ledger.

        Raises:
            DataError: A decision id that is stored already.
        """
        if self._decisions:
            try:
                self._connection.execute(_NEW_DECISIONS, [_row(one) for one in self._decisions])
            except IntegrityError as error:
                raise DataError(
                    f"campaign {self.campaign!r}: a decision id is stored already; "
                    "each decision has its own"
                ) from error
            ledger.count(self._connection, self.campaign, self._decisions)
        if self._requests:
            self._connection.execute(_NEW_REQUESTS, self._request_rows())
        self._decisions, self._requests = [], {}

    def _stored(self, request_id: str) -> tuple[str, list[Decision]] | None:
        key = {"campaign": self.campaign, "request_id": request_id}
        found = self._connection.execute(_REQUEST, key).one_or_none()
        if found is None:
            return None
        return found.body, fetch(self._connection, json.loads(found.decision_ids))

    def _request_rows(self) -> list[dict[str, Any]]:
        now = time.time_ns() // 1000
        return [
            {
                "campaign": self.campaign,
                "request_id": request_id,
                "body": body,
                "decision_ids": json.dumps([one.decision_id for one in decisions]),
                "recorded_at": now,
            }
            for request_id, (body, decisions) in self._requests.items()
        ]


def fetch(connection: Connection, decision_ids: Sequence[str]) -> list[Decision]:
    """The stored decisions with these ids, in that order; unknown ids are left out."""
    table, found = tables.decisions, {}
    for start in range(0, len(decision_ids), CHUNK):
        query = select(table).where(table.c.decision_id.in_(decision_ids[start : start + CHUNK]))
        for row in connection.execute(query).mappings():
            found[row["decision_id"]] = _decision(row)
    return [found[decision_id] for decision_id in decision_ids if decision_id in found]


_FIELDS = tuple(field.name for field in fields(Decision) if field.compare)


def _row(decision: Decision) -> dict[str, Any]:
    row = {name: getattr(decision, name) for name in _FIELDS}
    row["decided_at"] = to_micros(decision.decided_at)
    row["levels"] = json.dumps(dict(decision.levels))
    row["features"] = json.dumps(dict(decision.features), allow_nan=False)
    return row


def _decision(row: RowMapping) -> Decision:
    values = dict(row)
    values["decided_at"] = from_micros(values["decided_at"])
    values["levels"] = json.loads(values["levels"])
    values["features"] = json.loads(values["features"])
    return Decision(**values)
