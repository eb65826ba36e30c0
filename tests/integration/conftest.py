"""What the tests against real services share."""

from __future__ import annotations

import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns.settings import QUIET
from tests.integration.s3 import BUCKET, s3_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a database of the session's own, on the PostgreSQL at 127.0.0.1:5432."""
    _probe("PostgreSQL", 5432)
    psycopg = pytest.importorskip("psycopg", reason="PostgreSQL driver (psycopg) is not installed")
    server = "postgresql://postgres@127.0.0.1:5432"
    name = f"updraft_{uuid.uuid4().hex}"
    try:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
    except psycopg.OperationalError as error:
        pytest.skip(f"PostgreSQL at 127.0.0.1:5432 refuses user postgres ({error})")
    yield f"{server}/{name}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The Redis at 127.0.0.1:6379; who writes there removes it again."""
    _probe("Redis", 6379)
    pytest.importorskip("redis", reason="Redis client (redis) is not installed")
    return "redis://127.0.0.1:6379/0"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket of a server that speaks S3; ``AWS_*`` name it."""
    with s3_server("127.0.0.1") as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield BUCKET


def _probe(server: str, port: int) -> None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError as error:
        pytest.skip(f"no {server} at 127.0.0.1:{port} ({error})")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray of four logical CPUs that all tests of the session share."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        folder = Path(
            tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        )  # sockets: 107 characters at most
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            _temp_dir=str(folder),
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
