"""How the event store's tables came to be, step by step (Alembic)."""

HEAD = "0002"  # the last step; so that a store that is up to date is opened without Alembic
VERSIONS = "updraft_events_version"  # the table that says it: MLflow has one of Alembic's own name
