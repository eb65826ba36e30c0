"""The offline log: a folder of Parquet files that only grows, and that a killed process can't spoil.

Columns: ``unit_id`` string, ``event_timestamp`` timestamp[us, UTC] (when the features held),
``created_timestamp`` timestamp[us, UTC] (when the log learned of them), numeric features float64,
categorical ones string; nulls where a feature is missing. Where a (unit, time) comes twice with
different values, the row that was created last counts.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.locks import locked
from feature_repo.names import CREATED, TIME, UNIT

TIMESTAMP = pa.timestamp("us", tz="UTC")
SMALL_BYTES = 4 * 2**20
MANY_SMALL = 64
MEMORY = "3GB"  # that a DuckDB of ours takes before it goes through the disk

_READ_LOCK = ".read.lock"

_SQL_TYPE = {pa.string(): "VARCHAR", pa.float64(): "DOUBLE", TIMESTAMP: "TIMESTAMPTZ"}


def log_schema(numeric: Sequence[str], categorical: Sequence[str]) -> pa.Schema:
    """The log's schema, for features under their names in Feast."""
    fields = [(UNIT, pa.string()), (TIME, TIMESTAMP), (CREATED, TIMESTAMP)]
    fields += [(name, pa.float64()) for name in numeric]
    fields += [(name, pa.string()) for name in categorical]
    return pa.schema(fields)


class FeatureLog:
    """The log in ``folder``; safe for several processes and threads at once."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = self.place = folder
        self.schema = schema

    def prepare(self) -> None:
        """Make the folder, with one empty file so that it can be read, and the schema the same in all.

        Files written under other features are rewritten: a feature that is new to them is missing
        there until its rows are ingested again, and one that the campaign no longer names goes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.writing():
            other = [part for part in self._parts() if not pq.read_schema(part).equals(self.schema)]
            if other:
                with locked(self.folder / _READ_LOCK):
                    self._merge(other)
            if not self._parts():
                self._write(self.schema.empty_table())

    def append(self, rows: pa.Table) -> int:
        """Add the rows that the log doesn't hold yet; returns how many those were.

        Args:
            rows: The schema's columns but ``created_timestamp``, unique in (unit, time).
        """
        if not rows.num_rows:
            return 0
        with self.writing():
            for abandoned in self.folder.glob(".*.tmp"):
                abandoned.unlink()
            new = self._unknown(rows)
            if new.num_rows:
                created = pa.scalar(datetime.now(UTC), TIMESTAMP)
                new = new.append_column(CREATED, pa.repeat(created, new.num_rows))
                self._write(new.select(self.schema.names))
                self._tidy()
            return new.num_rows

    def writing(self) -> AbstractContextManager[None]:
        """While this is held nobody else writes."""
        return locked(self.folder / ".append.lock")

    def reading(self) -> AbstractContextManager[None]:
        """While this is held no file goes away (new ones may come)."""
        return locked(self.folder / _READ_LOCK, shared=True)

    def latest(
        self, until: datetime | None = None, created_after: datetime | None = None
    ) -> tuple[pa.Table, datetime | None]:
        """The last row of each unit, and when the log's newest row was created (None: it has none).

        Args:
            until: Only rows up to this time; None for all.
            created_after: Only units that have a row created after this; None for all.
        """
        query = (
            "SELECT * FROM read_parquet($parts) "
            "WHERE event_timestamp <= coalesce($until, 'infinity'::TIMESTAMPTZ) "
            "AND ($after IS NULL OR unit_id IN "
            "(SELECT unit_id FROM read_parquet($parts) WHERE created_timestamp > $after)) "
            "QUALIFY row_number() OVER (PARTITION BY unit_id "
            "ORDER BY event_timestamp DESC, created_timestamp DESC) = 1 "
            "ORDER BY length(unit_id), unit_id"  # the order of the online store's keys: inserts go faster
        )
        with self.reading(), self._database.cursor() as cursor:
            parts = self._parts()
            table = _run(cursor, query, parts=parts, until=until, after=created_after)
            newest = _run(
                cursor, "SELECT max(created_timestamp) FROM read_parquet($parts)", parts=parts
            )
            return table, newest.column(0)[0].as_py()

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        # kept: opening one takes longer than what a push asks of it
        spill = str(self.folder / ".spill")
        return duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill})

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def _unknown(self, rows: pa.Table) -> pa.Table:
        """The rows that the log doesn't hold with just these values, in the order of time."""
        times = pc.min_max(rows[TIME]).as_py()
        parts = [part for part in self._parts() if _overlaps(part, times["min"], times["max"])]
        if not parts:  # most appends are of a time of their own: nothing to compare them with
            return rows.sort_by([(TIME, "ascending"), (UNIT, "ascending")])
        names = ", ".join(quoted(name) for name in rows.column_names)
        query = (
            f"SELECT {names} FROM rows EXCEPT (SELECT {names} FROM read_parquet($parts) "
            "WHERE event_timestamp BETWEEN (SELECT min(event_timestamp) FROM rows) "
            "AND (SELECT max(event_timestamp) FROM rows)) ORDER BY event_timestamp, unit_id"
        )
        with self._database.cursor() as cursor:
            cursor.register("rows", rows)
            return _run(cursor, query, parts=parts)

    def _write(self, table: pa.Table) -> None:
        """Add a file that is whole from the moment that it has its name."""
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        name = f"part-{moment}-{uuid.uuid4().hex[:8]}"
        unfinished = self.folder / f".{name}.tmp"
        pq.write_table(table.cast(self.schema), unfinished)
        os.replace(unfinished, self.folder / f"{name}.parquet")

    def _tidy(self) -> None:
        """Merge small files (each push leaves one) once there are many and nobody reads."""
        small = [part for part in self._parts() if part.stat().st_size < SMALL_BYTES]
        if len(small) < MANY_SMALL:
            return
        with contextlib.suppress(BlockingIOError), locked(self.folder / _READ_LOCK, wait=False):
            self._merge(small)

    def _merge(self, parts: list[Path]) -> None:
        """Write the parts as one of the log's schema. Killed half-way, some rows are there twice."""
        source = "read_parquet($parts, union_by_name = true)"
        with self._database.cursor() as cursor:
            described = _run(cursor, f"SELECT * FROM {source} LIMIT 0", parts=parts)
            present = {name.lower() for name in described.column_names}
            columns = ", ".join(_cast(field, present) for field in self.schema)
            query = f"SELECT {columns} FROM {source} ORDER BY event_timestamp, unit_id"
            self._write(_run(cursor, query, parts=parts))
        for part in parts:
            part.unlink()


def _overlaps(part: Path, first: datetime, last: datetime) -> bool:
    """Whether a part has rows of the times between."""
    return any(first <= latest and earliest <= last for earliest, latest in _spans(part))


@lru_cache(maxsize=4096)  # a part never changes, and none gets the name of another
def _spans(part: Path) -> list[tuple[datetime, datetime]]:
    """From when to when each row group's rows are."""
    meta = pq.read_metadata(part)
    column = meta.schema.names.index(TIME)
    groups = [meta.row_group(number).column(column) for number in range(meta.num_row_groups)]
    return [(group.statistics.min, group.statistics.max) for group in groups if group.num_values]


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _run(
    cursor: duckdb.DuckDBPyConnection, query: str, *, parts: list[Path], **values: object
) -> pa.Table:
    return cursor.sql(
        query, params={"parts": [str(part) for part in parts], **values}
    ).to_arrow_table()


def _cast(field: pa.Field, present: set[str]) -> str:
    kind = _SQL_TYPE[field.type]
    value = f"TRY_CAST({quoted(field.name)} AS {kind})"
    return f"{value if field.name.lower() in present else f'NULL::{kind}'} AS {quoted(field.name)}"
