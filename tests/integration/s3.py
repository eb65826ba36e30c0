"""A server that speaks S3 (moto's), in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "s3://updraft-test"
SECONDS = 60


@contextmanager
def s3_server(host: str) -> Iterator[dict[str, str]]:
    """Serve an empty bucket; gives the variables (``AWS_*``) with which clients find it."""
    pytest.importorskip("moto", reason="moto, which serves S3 here, is not installed")
    boto3 = pytest.importorskip("boto3", reason="boto3, which makes the bucket, is not installed")
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(host, port)
        boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=variables["AWS_DEFAULT_REGION"],
        ).create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        yield variables
    finally:
        server.kill()
        server.wait()


def _wait(host: str, port: int) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            return socket.create_connection((host, port), timeout=2).close()
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {host}:{port}")
