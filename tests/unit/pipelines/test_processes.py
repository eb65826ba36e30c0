"""Children never outlive us, and locks heal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings
from pipelines.lock import campaign_lock
from pipelines.processes import child, free_port, require_port

SLEEPER = (
    "import subprocess, sys, time; "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print(p.pid, flush=True); {then}"
)


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def grandchild(log: Path) -> int:
    assert wait_for(lambda: log.exists() and log.read_text().strip())
    return int(log.read_text().split()[0])


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("then", ["sys.stdin.read()", "time.sleep(600)"])
def test_a_child_and_what_it_started_end_with_the_block(
    tmp_path: Path, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it heeds its standard input or not."""
    monkeypatch.setattr("pipelines.processes.GRACE_S", 1.0)
    log = tmp_path / "log"
    command = [sys.executable, "-c", SLEEPER.format(then=then)]
    with child(command, log=log, environment={}) as process:
        below = grandchild(log)
    assert process.poll() is not None
    assert wait_for(lambda: not alive(below))


def test_the_pipeline_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """A parent that gets SIGKILL can't clean up: the closing of the pipe does it."""
    inner = (
        "import threading, time, os; from pipelines.local_run import _die_with_parent; "
        "threading.Thread(target=_die_with_parent, daemon=True).start(); "
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = (
        "import sys; from pathlib import Path; from pipelines.processes import child\n"
        f"with child([sys.executable, '-c', {inner!r}], log=Path({str(tmp_path / 'log')!r}), "
        "environment={}) as p: p.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    below = grandchild(tmp_path / "log")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_for(lambda: not alive(below))


def test_one_run_a_campaign_and_the_error_says_who_holds_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with (
        campaign_lock("bonus", "updraft run", settings),
        pytest.raises(EnvironmentProblem, match=f"'updraft run' .process {os.getpid()}, since"),
        campaign_lock("bonus", "updraft demo", settings),
    ):
        pass
    with campaign_lock("bonus", "updraft demo", settings):
        pass


def test_other_campaigns_may_run_meanwhile(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with campaign_lock("one", "x", settings), campaign_lock("two", "x", settings):
        pass


def test_the_lock_of_a_killed_process_heals(tmp_path: Path) -> None:
    code = (
        "import time; from campaigns.settings import Settings; from pathlib import Path\n"
        "from pipelines.lock import campaign_lock\n"
        f"with campaign_lock('bonus', 'x', Settings(home=Path({str(tmp_path)!r}))):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    with campaign_lock("bonus", "updraft run", Settings(home=tmp_path)):
        pass


def test_ports_are_found_and_a_taken_one_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"port {port} is in use"):
            require_port(port)
        assert free_port() != port


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a folder that root can't write")
def test_a_home_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(
        EnvironmentProblem, match="can't be written .*; free the disk, or point UPDRAFT_HOME"
    ):
        Settings(home=Path("/proc/updraft")).folder("runs")


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        Settings(home=tmp_path / "home").folder("runs")


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """A file system of 64 KiB, filled to the brim."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        (small / "fill").write_bytes(bytes(64 * 1024))
        with pytest.raises(
            EnvironmentProblem, match="can't be written .No space left on device.; free"
        ):
            Settings(home=small).folder("runs")
    finally:
        subprocess.run(["umount", str(small)], check=True)
