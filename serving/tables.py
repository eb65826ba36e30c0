"""The event store's tables, and an engine that several processes may write through at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from campaigns.errors import EnvironmentProblem
from serving.migrate import bring_up_to_date

BUSY_SECONDS = 30  # how long a writer waits for another process's transaction

metadata = MetaData()  # a change here is also a step in serving/migrations

# One row a campaign; its writers lock it against each other.
campaigns = Table(
    "campaigns",
    metadata,
    Column("campaign", String(63), primary_key=True),
    Column("outcomes", Text, nullable=False),  # JSON {name: kind}
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", String(36), primary_key=True),
    Column("campaign", String(63), nullable=False),
    Column("unit_id", Text, nullable=False),
    Column("decided_at", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("arm", Integer, nullable=False),
    Column("arm_name", Text, nullable=False),
    Column("levels", Text, nullable=False),  # JSON {factor: level}
    Column("propensity", Float(53), nullable=False),
    Column("explored", Boolean, nullable=False),
    Column("explored_propensity", Float(53)),
    Column("holdout", Boolean, nullable=False),
    Column("policy_version", Text),
    Column("model_version", Text),
    Column("features", Text, nullable=False),  # JSON, as seen
    Column("cost", Float(53), nullable=False),  # expected when it was decided
    Column("price", Float(53)),
    Column("epsilon", Float(53)),
    Column("epoch", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("decisions_by_time", "campaign", "decided_at"),
)

# Every write is kept; which one counts is decided when they are read (serving/history.py).
outcomes = Table(
    "outcomes",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("decision_id", String(36), nullable=False),
    Column("outcome", String(63), nullable=False),
    Column("value", Float(53), nullable=False),
    Column("observed_at", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("correct", Boolean, nullable=False),
    Index("outcomes_by_decision", "decision_id", "outcome"),
)

requests = Table(
    "requests",
    metadata,
    Column("campaign", String(63), primary_key=True),
    Column("request_id", String(200), primary_key=True),
    Column("body", String(64), nullable=False),  # hash of what was asked
    Column("decision_ids", Text, nullable=False),  # JSON, in the order asked
    Column("recorded_at", BigInteger, nullable=False),
)

# Sums over decisions, kept in the same transaction: a budget is checked without reading the log.
ledger = Table(
    "ledger",
    metadata,
    Column("campaign", String(63), primary_key=True),
    Column("period", String(63), primary_key=True),
    Column("arm_name", Text, primary_key=True),
    Column("decisions", BigInteger, nullable=False),
    Column("explored", BigInteger, nullable=False),
    Column("holdout", BigInteger, nullable=False),
    Column("spend", Float(53), nullable=False),
    Column("exploration_spend", Float(53), nullable=False),
)

# What the decisions of a period have used of a limit, kept likewise.
limit_uses = Table(
    "limit_uses",
    metadata,
    Column("campaign", String(63), primary_key=True),
    Column("limit_name", Text, primary_key=True),
    Column("period", String(63), primary_key=True),
    Column("used", Float(53), nullable=False),
)


def open_engine(address: str) -> Engine:
    """An engine for the event store, its tables made or brought up to date.

    SQLite runs in WAL mode and syncs every commit; its write transactions take their lock when they
    begin, so that two processes queue instead of failing half-way.

    Args:
        address: SQLAlchemy URL: ``sqlite:///path`` or ``postgresql://user@host/database``.

    Raises:
        EnvironmentProblem: No such database, or it can't be reached or written.
    """
    shown = _url(address).render_as_string(hide_password=True)
    try:
        engine = connect(address)
        with turn(engine), engine.execution_options(write=True).begin() as connection:
            bring_up_to_date(connection)
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise EnvironmentProblem(
            f"event store {shown}: {reason}; point UPDRAFT_EVENT_STORE at a database that "
            "runs and may be written"
        ) from error
    return engine


def connect(address: str) -> Engine:
    """As :func:`open_engine`, with the tables left as they are."""
    url = _url(address)
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=8)


@contextmanager
def turn(engine: Engine) -> Iterator[None]:
    """Wait for this process's turn to write.

    SQLite's own waiting is polling, up to 100 ms apart: a process that writes all the time starves the
    others for seconds. A file lock beside the database wakes whoever waits. PostgreSQL needs none.
    """
    if engine.dialect.name != "sqlite":
        yield
        return
    with open(f"{engine.url.database}.turn", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed, or its process ends
        yield


def _url(address: str) -> URL:
    try:
        url = make_url(address)
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise EnvironmentProblem(
            "UPDRAFT_EVENT_STORE: is no database URL that Updraft knows; write "
            "sqlite:///path/to/events.db or postgresql://user:password@host/database"
        ) from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise EnvironmentProblem(
            f"UPDRAFT_EVENT_STORE: {url.get_backend_name()!r} is not supported; "
            "use 'sqlite' or 'postgresql'"
        )
    return url


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise EnvironmentProblem(
            "UPDRAFT_EVENT_STORE: an in-memory SQLite is not durable; give a file: sqlite:///events.db"
        )
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
