"""Child processes that never outlive us: each ends when its standard input closes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from campaigns.errors import EnvironmentProblem

GRACE_S = 10.0


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def child(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in ``log``; on the way out, end it and all that it started.

    The child has its own session, so that a Ctrl-C reaches us alone and we end things in order, and a
    pipe as standard input, whose closing tells it that we are gone, however we went.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a child and its descendants: close its input, then ask, then kill."""
    family = _descendants(process.pid)
    if process.stdin and not process.stdin.closed:
        process.stdin.close()
    for urge in (lambda: None, process.terminate, process.kill):
        urge()
        try:
            process.wait(GRACE_S)
            break
        except subprocess.TimeoutExpired:
            continue
    _, alive = psutil.wait_procs(family, timeout=GRACE_S / 2)
    for straggler in alive:
        with suppress(psutil.NoSuchProcess):
            straggler.kill()
    psutil.wait_procs(alive, timeout=GRACE_S / 2)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def exit_with_parent() -> None:
    """In a child: block until the parent closes our standard input (or dies)."""
    # The descriptor itself: a buffered reader in a daemon thread can't be left at interpreter exit.
    while os.read(0, 4096):
        pass


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_port(port: int) -> int:
    """The port, if it is free.

    Raises:
        EnvironmentProblem: Another process listens on it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EnvironmentProblem(
                f"port {port} is in use ({error.strerror}); leave --port out to have a free one found"
            ) from error
    return port
