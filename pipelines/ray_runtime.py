"""One Ray for a run: steps attach to it by address."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings
from pipelines.processes import child, python

START_S = 120.0
SERVING = "serving.json"


@contextmanager
def ray_runtime(settings: Settings, *, serving: bool = False) -> Iterator[Settings]:
    """The settings with ``ray_address`` set: to the one given, to the one that serves, or to a new one.

    A new Ray is ours and ends with this block; one that was there stays. Only the Ray of ``updraft
    serve`` is there for others: a run that promotes swaps the model in it.

    Raises:
        EnvironmentProblem: Ray didn't start.
    """
    address = settings.ray_address or living(settings)
    if address:
        yield settings.model_copy(update={"ray_address": address})
        return
    _make_token(settings)
    folder = settings.folder("ray")
    file = folder / (SERVING if serving else f"{os.getpid()}.json")
    file.unlink(missing_ok=True)
    log = folder / f"{file.stem}.log"
    log.unlink(missing_ok=True)
    command = python("pipelines.ray_host", str(file))
    with child(command, log=log, environment=settings.environment()) as process:
        deadline = time.monotonic() + START_S
        while not (address := _living(file)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EnvironmentProblem(f"Ray didn't start; its log is {log}: {_last_line(log)}")
            time.sleep(0.1)
        yield settings.model_copy(update={"ray_address": address})


def living(settings: Settings) -> str | None:
    """The address of the Ray that serves from this home, if one does."""
    return _living(settings.folder("ray") / SERVING)


def _living(file: Path) -> str | None:
    """The address in the file, if the process that wrote it lives."""
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    try:
        command = psutil.Process(told["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return None
    # The id alone may be another process by now.
    return str(told["address"]) if "pipelines.ray_host" in command else None


def _make_token(settings: Settings) -> None:
    """Ray's own authentication: every process of the run shows this token."""
    path = settings.folder("secrets") / "ray_token"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it is empty"
