"""Does this machine have what Updraft needs? Each miss with what mends it."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import psutil
from packaging.requirements import Requirement

from campaigns.errors import EnvironmentProblem, UpdraftError
from campaigns.settings import Settings

GIB = 2**30
DISK = (1.0, 5.0)  # GiB free: too little for one run, little for several
MEMORY = (2.0, 4.0)  # GiB free: Ray alone takes 1, a run on the demo's campaign 3.6 (two workers)

Result = Literal["ok", "warning", "miss"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was seen, and what mends it where it isn't well.

    Attributes:
        result: ``miss`` keeps Updraft from working, a ``warning`` may.
    """

    check: str
    result: Result
    seen: str
    fix: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Everything about this machine, in the order in which to mend it."""
    checks: list[Callable[[Settings], Iterator[Finding]]] = [
        _python, _versions, _home, _disk, _memory, _ray, _ports, _stores,
    ]  # fmt: skip
    return [finding for check in checks for finding in check(settings)]


def _python(settings: Settings) -> Iterator[Finding]:
    wanted = metadata.metadata("updraft")["Requires-Python"]
    seen = ".".join(map(str, sys.version_info[:3]))
    good = Requirement(f"python{wanted}").specifier.contains(seen)
    yield Finding(
        "Python", "ok" if good else "miss", seen, "" if good else f"make install with {wanted}"
    )


def _versions(settings: Settings) -> Iterator[Finding]:
    """The packages that pyproject.toml asks for, within its bounds."""
    wrong, count = [], 0
    for text in metadata.requires("updraft") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            seen = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append((f"{wanted.name} is missing", wanted))
            continue
        if not wanted.specifier.contains(seen, prereleases=True):
            wrong.append((f"{wanted.name} {seen} is not {wanted.specifier}", wanted))
    if not wrong:
        yield Finding("packages", "ok", f"{count} as pyproject.toml asks")
    for told, wanted in wrong:
        fix = f"pip install -c constraints.txt '{wanted.name}{wanted.specifier}'"
        yield Finding("packages", "miss", told, fix)


def _home(settings: Settings) -> Iterator[Finding]:
    made = [path for path in (settings.root, *settings.root.parents) if not path.exists()]
    try:
        yield Finding("home", "ok", str(settings.folder()))
    except EnvironmentProblem as error:
        seen, _, fix = str(error).rpartition("; ")
        yield Finding("home", "miss", seen, fix)
    for path in made:  # looking leaves nothing behind
        if path.exists():
            path.rmdir()


def _disk(settings: Settings) -> Iterator[Finding]:
    place = next(path for path in (settings.root, *settings.root.parents) if path.exists())
    free = shutil.disk_usage(place).free / GIB
    fix = "free the disk (updraft clean), or point UPDRAFT_HOME at a larger one"
    yield _enough("free disk", free, DISK, fix)


def _memory(settings: Settings) -> Iterator[Finding]:
    free = psutil.virtual_memory().available / GIB
    yield _enough("free memory", free, MEMORY, "end what else runs, or take a larger machine")


def _ray(settings: Settings) -> Iterator[Finding]:
    """Ray's sockets lie in /tmp, whose paths are short enough for them."""
    try:
        with tempfile.TemporaryDirectory(prefix="updraft-", dir="/tmp"):
            pass
    except OSError as error:
        yield Finding("Ray's folder", "miss", f"/tmp: {error.strerror}", "make /tmp writable")
    else:
        yield Finding("Ray's folder", "ok", "/tmp")
    cores = psutil.cpu_count() or 1
    told = f"{settings.cpus} logical on {cores}"
    if settings.cpus > 4 * cores and settings.cpus > 6:
        yield Finding("CPUs", "warning", told, f"UPDRAFT_CPUS={max(6, cores)} would be as fast")
    else:
        yield Finding("CPUs", "ok", told)


def _ports(settings: Settings) -> Iterator[Finding]:
    from pipelines.processes import free_port

    try:
        yield Finding("ports", "ok", f"127.0.0.1 has free ones, such as {free_port()}")
    except OSError as error:
        yield Finding("ports", "miss", f"127.0.0.1: {error.strerror}", "bring the loopback up")


def _stores(settings: Settings) -> Iterator[Finding]:
    """The services that the settings name; what lies in the home is there already."""
    if settings.event_store:
        yield _store(settings.event_store)
    uri = settings.tracking_uri or ""
    if uri.startswith("http"):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
                yield Finding("MLflow", "ok", uri)
        except (OSError, ValueError) as error:
            told = f"{uri}: {error}"
            yield Finding("MLflow", "miss", told, "start it, or mend UPDRAFT_TRACKING_URI")


def _store(url: str) -> Finding:
    from sqlalchemy.exc import SQLAlchemyError

    from serving.events import EventStore

    shown = re.sub(r"://[^@/]*@", "://", url)
    try:
        EventStore(url)
    except (SQLAlchemyError, ImportError, UpdraftError) as error:
        told = _line(getattr(error, "orig", None) or error)
        fix = "start it, or mend UPDRAFT_EVENT_STORE"
        return Finding("event store", "miss", f"{shown}: {told}", fix)
    return Finding("event store", "ok", shown)


def _enough(check: str, free: float, bounds: tuple[float, float], fix: str) -> Finding:
    least, better = bounds
    result: Result = "miss" if free < least else "warning" if free < better else "ok"
    return Finding(check, result, f"{free:.1f} GiB", "" if result == "ok" else fix)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
