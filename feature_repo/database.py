"""The offline log in PostgreSQL: a table a campaign in the schema ``updraft_features``.

The same columns and the same answers as :mod:`feature_repo.log`, for steps and replicas that share no disk.
Needs the extra ``postgres``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv

from campaigns.errors import EnvironmentProblem
from feature_repo.log import TIMESTAMP, quoted
from feature_repo.names import CREATED, TIME, UNIT

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

SCHEMA = "updraft_features"
APPLIED = f'{SCHEMA}."/applied"'  # no campaign is called so
CONNECT_SECONDS = 10

_SQL_TYPE = {
    pa.string(): "text",
    pa.float64(): "double precision",
    TIMESTAMP: "timestamp with time zone",
}


def table_name(campaign: str) -> str:
    """The campaign's table, as SQL has it."""
    return f"{SCHEMA}.{quoted(campaign)}"


def plain_url(url: str) -> str:
    """The URL as PostgreSQL's own library takes it.

    Raises:
        EnvironmentProblem: It is that of something else.
    """
    scheme, separator, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg") or not separator:
        raise EnvironmentProblem(
            f"UPDRAFT_FEAST_DATABASE: {scheme!r} is not supported; "
            "write postgresql://user:password@host/database"
        )
    return f"postgresql://{rest}"


@contextmanager
def connected(url: str) -> Iterator[Connection[Any]]:
    """A connection in UTC; commits at the end, or rolls back where the block raises.

    Raises:
        EnvironmentProblem: The server is away, refuses, or fails.
    """
    try:
        import psycopg
    except ImportError as error:
        raise EnvironmentProblem(
            "UPDRAFT_FEAST_DATABASE: psycopg is not installed; pip install 'updraft[postgres]'"
        ) from error
    try:
        with psycopg.connect(
            url, connect_timeout=CONNECT_SECONDS, options="-c timezone=UTC -c datestyle=ISO"
        ) as connection:
            yield connection
    except psycopg.Error as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EnvironmentProblem(
            f"feature database (UPDRAFT_FEAST_DATABASE): {reason}; "
            "look whether PostgreSQL runs, has room and may be written"
        ) from error


class DatabaseLog:
    """The log of one campaign in the database at ``url``; safe for several processes at once."""

    def __init__(self, url: str, campaign: str, schema: pa.Schema) -> None:
        self.url, self.campaign, self.schema = plain_url(url), campaign, schema
        self.place = table_name(campaign)  # as SQL and Feast have it

    def prepare(self) -> None:
        """Make the table, or its columns those of the campaign; a column of another type starts empty."""
        with connected(self.url) as connection:
            self._alone(connection)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {APPLIED} (campaign text PRIMARY KEY, definitions text)"
            )
            keys = ", ".join(
                f"{name} {_SQL_TYPE[self.schema.field(name).type]} NOT NULL"
                for name in (UNIT, TIME, CREATED)
            )
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self.place} ({keys}, PRIMARY KEY ({UNIT}, {TIME}, {CREATED}))"
            )
            index = f"created_{hashlib.sha256(self.campaign.encode()).hexdigest()[:12]}"
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS {index} ON {self.place} USING brin ({CREATED})"
            )
            self._align(connection)

    def applied(self) -> str | None:
        """The definitions that were applied last; None before the first time."""
        with connected(self.url) as connection:
            if connection.execute("SELECT to_regclass(%s)", (APPLIED,)).fetchone() == (None,):
                return None
            row = connection.execute(
                f"SELECT definitions FROM {APPLIED} WHERE campaign = %s", (self.campaign,)
            ).fetchone()
        return row and row[0]

    def set_applied(self, definitions: str) -> None:
        """Record that they are applied now."""
        with connected(self.url) as connection:
            connection.execute(
                f"INSERT INTO {APPLIED} VALUES (%s, %s) "
                "ON CONFLICT (campaign) DO UPDATE SET definitions = excluded.definitions",
                (self.campaign, definitions),
            )

    def append(self, rows: pa.Table) -> int:
        """As :meth:`feature_repo.log.FeatureLog.append`."""
        if not rows.num_rows:
            return 0
        names = ", ".join(map(quoted, rows.column_names))
        with connected(self.url) as connection, connection.cursor() as cursor:
            self._alone(connection)
            upload(cursor, rows, "new")
            found = cursor.execute(
                f"INSERT INTO {self.place} ({names}, {CREATED}) SELECT unknown.*, now.moment "
                f"FROM (SELECT {names} FROM new EXCEPT SELECT {names} FROM {self.place} WHERE {TIME} "
                f"BETWEEN (SELECT min({TIME}) FROM new) AND (SELECT max({TIME}) FROM new)) AS unknown, "
                # The lock is held: the clock, unlike the transaction's begin, follows every row before.
                "(SELECT clock_timestamp() AS moment) AS now"
            )
            return found.rowcount

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While this is held nobody applies a repository in this database."""
        with connected(self.url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (SCHEMA,))
            yield

    def reading(self) -> AbstractContextManager[None]:
        """A reader sees the table as it was when it began, whoever writes."""
        return nullcontext()

    def latest(
        self, until: datetime | None = None, created_after: datetime | None = None
    ) -> tuple[pa.Table, datetime | None]:
        """As :meth:`feature_repo.log.FeatureLog.latest`."""
        query = (
            f"SELECT DISTINCT ON ({UNIT}) * FROM {self.place} "
            f"WHERE {TIME} <= coalesce(%(until)s, 'infinity'::timestamptz) "
            f"AND (%(after)s::timestamptz IS NULL OR {UNIT} IN "
            f"(SELECT {UNIT} FROM {self.place} WHERE {CREATED} > %(after)s)) "
            f"ORDER BY {UNIT}, {TIME} DESC, {CREATED} DESC"
        )
        with connected(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            row = cursor.execute(f"SELECT max({CREATED}) FROM {self.place}").fetchone()
            table = download(cursor, query, {"until": until, "after": created_after}, self.schema)
            return table, row and row[0]

    def _alone(self, connection: Connection[Any]) -> None:
        """Wait for the other writers of the campaign; until the transaction ends."""
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (self.campaign,)
        )

    def _align(self, connection: Connection[Any]) -> None:
        found = connection.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (self.place,),
        )
        there, wanted = dict(found.fetchall()), {f.name: _SQL_TYPE[f.type] for f in self.schema}
        changes = [
            f"DROP COLUMN {quoted(name)}"
            for name, kind in there.items()
            if wanted.get(name) != kind
        ]
        changes += [
            f"ADD COLUMN {quoted(name)} {kind}"
            for name, kind in wanted.items()
            if there.get(name) != kind
        ]
        if changes:
            connection.execute(f"ALTER TABLE {self.place} {', '.join(changes)}")


def upload(cursor: Cursor[Any], rows: pa.Table, name: str) -> None:
    """Make the rows a temporary table of this transaction."""
    columns = ", ".join(f"{quoted(field.name)} {_sql_type(field.type)}" for field in rows.schema)
    cursor.execute(f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DROP")
    text = pa.BufferOutputStream()
    csv.write_csv(rows, text, csv.WriteOptions(include_header=False))  # null: nothing; '': quotes
    with cursor.copy(f"COPY {name} FROM STDIN (FORMAT csv)") as copy:
        copy.write(text.getvalue())
    cursor.execute(f"ANALYZE {name}")


def download(
    cursor: Cursor[Any], query: str, values: dict[str, Any] | None, schema: pa.Schema
) -> pa.Table:
    """What a query answers, under the schema's names and types."""
    names = ", ".join(quoted(name) for name in schema.names)
    text = pa.BufferOutputStream()
    with cursor.copy(
        f"COPY (SELECT {names} FROM ({query}) AS answer) TO STDOUT (FORMAT csv)", values
    ) as copy:
        for part in copy:
            text.write(part)
    if not text.tell():
        return schema.empty_table()
    return csv.read_csv(
        pa.BufferReader(text.getvalue()),
        csv.ReadOptions(column_names=schema.names),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(
            column_types={field.name: field.type for field in schema},
            timestamp_parsers=["%Y-%m-%d %H:%M:%S%z", csv.ISO8601],
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ).select(schema.names)


def _sql_type(kind: pa.DataType) -> str:
    return "bigint" if pa.types.is_integer(kind) else _SQL_TYPE[kind]
