"""Ray nodes on one machine: processes of their own, in network and mount namespaces where root may make them.

A node in a namespace has an address of its own, and an empty folder where the others have ``hidden``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from ray.util import get_node_ip_address

from campaigns.settings import QUIET

RAY = str(Path(sys.executable).with_name("ray"))
ROOT = Path(__file__).resolve().parents[2]
MEMORY = str(100 * 2**20)  # of a node's object store


class Network:
    """A bridge with an address for this machine, and namespaces on it; removed at the end."""

    def __init__(self) -> None:
        self.name = f"ud{secrets.token_hex(3)}"
        self.subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.spaces: list[str] = []
        self.address = f"{self.subnet}.1"
        _ip("link", "add", self.name, "type", "bridge")
        try:
            _ip("addr", "add", f"{self.address}/24", "dev", self.name)
            _ip("link", "set", self.name, "up")
        except subprocess.CalledProcessError:
            self.close()
            raise

    def space(self) -> tuple[str, str]:
        """A new namespace: its name and its address."""
        number = len(self.spaces) + 2
        name, link, address = (
            f"{self.name}n{number}",
            f"{self.name}v{number}",
            f"{self.subnet}.{number}",
        )
        self.spaces.append(name)
        _ip("netns", "add", name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", link, "master", self.name, "up")
        for command in (
            ["addr", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
            ["route", "add", "default", "via", self.address],
        ):
            _ip("-n", name, *command)
        return name, address

    def close(self) -> None:
        for name in self.spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)
        _ip("link", "del", self.name)


class Nodes:
    """A head without CPUs on this machine, and worker nodes.

    Args:
        hidden: A folder that worker nodes don't have, where there are namespaces.
        network: None: all nodes have this machine's address.
    """

    def __init__(self, hidden: Path, network: Network | None) -> None:
        self.network, self.hidden = network, hidden
        self.host = network.address if network else get_node_ip_address()
        self.folder = Path(tempfile.mkdtemp(prefix="un", dir="/tmp"))  # sockets: short paths
        self.environment = {
            **os.environ,
            **QUIET,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_prestart_worker_first_driver": "0",
            "PYTHONPATH": str(ROOT),
        }
        with socket.create_server((self.host, 0)) as free:
            port = free.getsockname()[1]
        self.address = f"{self.host}:{port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        head = ["--head", f"--port={port}", "--num-cpus=0", f"--node-ip-address={self.host}"]
        self.head = self._start([*head, "--include-dashboard=false"], "head", [])

    def add(self, cpus: int) -> None:
        """Start a worker node."""
        arguments, before = [f"--address={self.address}", f"--num-cpus={cpus}"], list[str]()
        if self.network:
            name, address = self.network.space()
            arguments.append(f"--node-ip-address={address}")
            hide = f'mount -t tmpfs none "{self.hidden}" && exec "$@"'
            before = ["ip", "netns", "exec", name, "sh", "-c", hide, "sh"]
        self.workers.append(self._start(arguments, f"w{len(self.workers)}", before))

    @property
    def alive(self) -> list[int]:
        """The worker nodes that weren't killed."""
        return [number for number, process in enumerate(self.workers) if process.poll() is None]

    def kill(self, number: int) -> None:
        """SIGKILL all that runs on a worker node, at once."""
        _kill(self.workers[number])

    def runs(self, number: int, word: str) -> bool:
        """Whether a worker node runs a process with this word in its command line."""
        return any(word in line for line in _commands(self.workers[number]))

    def close(self) -> None:
        for process in [*self.workers, self.head]:
            _kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, arguments: list[str], name: str, before: list[str]) -> subprocess.Popen[bytes]:
        folder = self.folder / name
        folder.mkdir()
        log = (folder / "out").open("wb")
        return subprocess.Popen(
            [*before, RAY, "start", *arguments, f"--temp-dir={folder}", "--block",
             f"--object-store-memory={MEMORY}", "--disable-usage-stats",
             "--include-log-monitor=false"],
            env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip


@contextlib.contextmanager
def network() -> Iterator[Network | None]:
    """A network, or None where this process may not make one."""
    made = None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        made = Network()
        made.space()  # a namespace is what may be refused
    try:
        yield made if made and made.spaces else None
    finally:
        if made:
            made.close()


@contextlib.contextmanager
def nodes(cpus: list[int], net: Network | None, hidden: Path) -> Iterator[Nodes]:
    """A head, and so many worker nodes with these logical CPUs."""
    started = Nodes(hidden, net)
    try:
        for each in cpus:
            started.add(each)
        yield started
    finally:
        started.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _commands(process: subprocess.Popen[bytes]) -> list[str]:
    found = []
    for each in _family(process):
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(each.cmdline()))
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    for each in _family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    process.wait()
