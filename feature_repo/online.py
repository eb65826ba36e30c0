"""What Feast's SQLite online store leaves open: readers beside a writer, and how far it has come."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from feature_repo.locks import locked

PATIENCE = 30.0  # seconds in which a busy database becomes free


def once_free(write: Callable[[], None]) -> None:
    """Write, and again while the database is busy.

    Feast's threads share a connection. While one reads, another can't write over what a second
    process has written since, and SQLite says so at once, whatever timeout it was given.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return write()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= end:
                raise
            time.sleep(0.01)


class OnlineState:
    """A mark inside the online store's own database, so that the two can't disagree."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def writing(self) -> AbstractContextManager[None]:
        """Feast shares one connection among threads, and SQLite one file: one writer at a time."""
        return locked(self.path.with_name(".online.lock"))

    def explained(self) -> AbstractContextManager[None]:
        """A file needs no explanation of why it is away."""
        return contextlib.nullcontext()

    def prepare(self) -> None:
        """Let decisions be served while features are written (write-ahead log), and make the mark."""
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE IF NOT EXISTS updraft_materialized (created INTEGER)")

    def mark(self) -> datetime | None:
        """Every row of the log that was created by then is in the store; None: not known of any."""
        with self._open() as database:
            row = database.execute("SELECT max(created) FROM updraft_materialized").fetchone()
        return None if row[0] is None else datetime.fromtimestamp(row[0] / 1e6, UTC)

    def set_mark(self, created: datetime | None) -> None:
        """Record it (None: the next materialization starts over)."""
        with self._open() as database:
            database.execute("DELETE FROM updraft_materialized")
            if created is not None:
                micros = round(created.timestamp() * 1e6)
                database.execute("INSERT INTO updraft_materialized VALUES (?)", (micros,))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=PATIENCE)) as database, database:
            yield database
