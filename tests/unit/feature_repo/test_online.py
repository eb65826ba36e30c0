"""A busy SQLite database: writing waits for it, other faults don't."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from feature_repo import online
from feature_repo.online import once_free


def test_a_stale_snapshot_is_written_over_as_soon_as_its_reader_is_done(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    with (
        contextlib.closing(sqlite3.connect(path)) as shared,
        contextlib.closing(sqlite3.connect(path)) as other,
    ):
        shared.execute("PRAGMA journal_mode=WAL")
        shared.execute("CREATE TABLE kept (value INTEGER)")
        shared.executemany("INSERT INTO kept VALUES (?)", [(1,), (2,)])
        shared.commit()
        reader = shared.execute("SELECT value FROM kept")
        reader.fetchone()  # the shared connection holds its view of the database
        other.execute("INSERT INTO kept VALUES (3)")
        other.commit()
        tries = []

        def write() -> None:
            tries.append(len(tries))
            if len(tries) == 3:
                reader.close()
            with shared:
                shared.execute("INSERT INTO kept VALUES (4)")

        once_free(write)
        assert len(tries) == 3, "refused twice, at once, as SQLite does"
        assert shared.execute("SELECT count(*) FROM kept").fetchone() == (4,)


def test_patience_ends_and_other_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "PATIENCE", 0.05)
    tries = []

    def fail(why: str) -> None:
        tries.append(why)
        raise sqlite3.OperationalError(why)

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        once_free(lambda: fail("database is locked"))
    assert len(tries) > 1
    tries.clear()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        once_free(lambda: fail("no such table"))
    assert len(tries) == 1
