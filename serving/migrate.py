"""The event store's tables, brought to what this release needs when a store is opened."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from campaigns.errors import EnvironmentProblem
from serving.migrations import HEAD, VERSIONS

LOCK = 0x7570_6472  # any number, the same in every process: who changes the tables


def bring_up_to_date(connection: Connection) -> None:
    """Take the steps that are missing, all or none, in the connection's transaction.

    On PostgreSQL other processes that start wait for this one; on SQLite the transaction excludes them.

    Raises:
        EnvironmentProblem: The tables are of a later release.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    found = version(connection)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise EnvironmentProblem(
            f"event store: its tables are of a later release (step {found}; this one knows {HEAD}); "
            "install that release, or restore the backup from before it"
        )
    command.upgrade(config, "head")


def version(connection: Connection) -> str | None:
    """The last step that the store has taken; None for one that has taken none."""
    if not inspect(connection).has_table(VERSIONS):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSIONS}"))
    return found
