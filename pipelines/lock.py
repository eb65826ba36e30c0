"""One run per campaign at a time; the lock heals by itself when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings


@contextmanager
def campaign_lock(campaign: str, doing: str, settings: Settings) -> Iterator[None]:
    """Hold the campaign while ``doing`` something.

    The kernel drops the lock with its process, so that no crash leaves one behind; the file says who
    holds it.

    Raises:
        EnvironmentProblem: Another process holds it.
    """
    path = settings.folder("locks") / f"{campaign}.lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise EnvironmentProblem(f"{campaign}: {_holder(file.read())}") from error
        file.seek(0)
        file.truncate()
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        json.dump({"pid": os.getpid(), "doing": doing, "since": started}, file)
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def _holder(text: str) -> str:
    try:
        told = json.loads(text)
        who = f"'{told['doing']}' (process {told['pid']}, since {told['since']}) is at work on it"
    except (ValueError, KeyError):
        who = "another run is at work on it"
    return f"{who}; wait for it, or end that process"
