"""What Alembic runs: on the connection that it is given, else on the event store of the settings."""

from alembic import context

from serving.migrations import VERSIONS
from serving.tables import metadata


def migrate(connection: object) -> None:
    """Take the steps in the connection's own transaction."""
    context.configure(
        connection=connection,  # type: ignore[arg-type]
        target_metadata=metadata,
        render_as_batch=True,  # SQLite alters a table by copying it
        transactional_ddl=True,  # SQLite's is too, once somebody has said BEGIN
        version_table=VERSIONS,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    from campaigns.settings import Settings
    from serving.tables import connect

    engine = connect(Settings().event_store_url)
    with engine.execution_options(write=True).begin() as opened:
        migrate(opened)
    engine.dispose()
