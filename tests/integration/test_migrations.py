"""The event store's tables, step by step: the same as declared, on SQLite and PostgreSQL, whoever starts first."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.schema import CreateSchema, DropSchema

from campaigns.errors import EnvironmentProblem
from serving import migrate, tables
from serving.migrations import HEAD, VERSIONS

STEPS = Path(migrate.__file__).parent / "migrations"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of an empty store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events.db'}"
        return
    database, schema = request.getfixturevalue("postgres"), f"events_{uuid.uuid4().hex}"
    engine = tables.connect(database)
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    yield f"{database}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.execute(DropSchema(schema, cascade=True))
    engine.dispose()


def differences(engine: Engine) -> list[object]:
    """Between the tables that are there and those that are declared, as Alembic finds them."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSIONS})
        return compare_metadata(context, tables.metadata)


def shapes(engine: Engine) -> dict[str, object]:
    """Columns, keys and indexes of every table."""
    found = inspect(engine)
    return {
        name: (
            [
                (
                    each["name"],
                    str(each["type"]),
                    each["nullable"],
                    str(each["default"]).split("'")[0],
                )
                for each in found.get_columns(name)
            ],
            found.get_pk_constraint(name)["constrained_columns"],
            sorted((each["name"], each["column_names"]) for each in found.get_indexes(name)),
        )
        for name in found.get_table_names()
        if name != VERSIONS
    }


def test_the_steps_lead_to_the_declared_tables(url: str, tmp_path: Path) -> None:
    engine = tables.open_engine(url)
    assert differences(engine) == []
    stepped = shapes(engine)
    with engine.execution_options(write=True).begin() as connection:
        assert migrate.version(connection) == HEAD
        tables.metadata.drop_all(connection)
        tables.metadata.create_all(connection)
    assert shapes(engine) == stepped
    engine.dispose()


def test_the_last_step_is_the_one_that_opening_looks_for() -> None:
    assert ScriptDirectory(str(STEPS)).get_heads() == [HEAD]


def test_a_store_from_before_there_were_steps_keeps_its_rows(url: str) -> None:
    engine = tables.connect(url)
    with engine.execution_options(write=True).begin() as connection:
        tables.metadata.create_all(connection)
        tables.limit_uses.drop(connection)
        connection.execute(tables.campaigns.insert(), {"campaign": "old", "outcomes": "{}"})
    engine.dispose()
    for _ in range(2):
        engine = tables.open_engine(url)
        assert differences(engine) == []
        with engine.connect() as connection:
            assert connection.scalars(tables.campaigns.select()).all() == ["old"]
        engine.dispose()


def test_processes_that_start_at_once_take_each_step_once(url: str) -> None:
    command = "import sys; from serving.tables import open_engine; open_engine(sys.argv[1])"
    started = [
        subprocess.Popen([sys.executable, "-c", command, url], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, told
    engine = tables.open_engine(url)
    assert differences(engine) == []
    with engine.connect() as connection:
        assert connection.scalars(text(f"SELECT version_num FROM {VERSIONS}")).all() == [HEAD]
    engine.dispose()


def test_a_step_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    real = op.create_table

    def fail_at_the_ledger(name: str, *columns: object, **options: object) -> None:
        if name == "ledger":
            raise OSError("the disk is full")
        real(name, *columns, **options)

    monkeypatch.setattr(op, "create_table", fail_at_the_ledger)
    with pytest.raises(EnvironmentProblem, match="the disk is full"):
        tables.open_engine(url)
    monkeypatch.undo()
    engine = tables.connect(url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    tables.open_engine(url).dispose()


def test_a_store_of_a_later_release_is_refused(url: str) -> None:
    engine = tables.open_engine(url)
    with engine.execution_options(write=True).begin() as connection:
        connection.execute(text(f"UPDATE {VERSIONS} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(EnvironmentProblem, match="later release \\(step 9999; this one knows"):
        tables.open_engine(url)
