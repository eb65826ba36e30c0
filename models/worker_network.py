"""Training workers talk over the network that their Ray nodes talk over.

Left alone, Gloo takes the address that the machine's own name stands for. Where ``/etc/hosts`` says
127.0.0.1 or 127.0.1.1, as Debian's does, workers of two machines don't find each other.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

GLOO = "GLOO_SOCKET_IFNAME"


@dataclass
class NodeTorchConfig(TorchConfig):
    """Ray's, with the interface settled before workers connect."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What sets the workers up."""
        return _NodeTorchBackend


class _NodeTorchBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_the_nodes_network)
        super().on_start(worker_group, backend_config)


def use_the_nodes_network() -> None:
    """Have Gloo use the interface with this Ray node's address, unless the environment names one."""
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault(GLOO, name)


def interface_of(address: str) -> str | None:
    """The network interface that has an address (IPv4 or IPv6); None where none has it.

    >>> interface_of("127.0.0.1")
    'lo'
    """
    for name, found in psutil.net_if_addrs().items():
        for each in found:
            known = each.family in (socket.AF_INET, socket.AF_INET6)
            if known and each.address.partition("%")[0] == address:
                return name
    return None
