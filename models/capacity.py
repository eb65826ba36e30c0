"""Logical CPUs and GPUs of the connected Ray: what is free, and what an interrupted run gives back.

Ray never starts work for which it has too few, and waits without a word: such work is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, remove_placement_group

from campaigns.errors import EnvironmentProblem

PATIENCE = 10.0  # seconds in which ending work may give back what it holds, or nodes may join
LEAST = 1e-6


def require(cpus: float, what: str, *, gpus: float = 0, patience: float | None = None) -> None:
    """Check that the connected Ray has so many free logical CPUs and GPUs.

    Args:
        cpus, gpus: What the work needs at once.
        what: What needs it, for the error.
        patience: How long to wait for them, in seconds; None: ``PATIENCE``.

    Raises:
        EnvironmentProblem: It has fewer, with the numbers.
    """
    end = time.monotonic() + (PATIENCE if patience is None else patience)
    while lacking := _lacking(cpus, gpus):
        if time.monotonic() >= end:
            raise EnvironmentProblem(f"{what}: {lacking}")
        time.sleep(0.25)


def _lacking(cpus: float, gpus: float) -> str:
    free, there = ray.available_resources(), ray.cluster_resources()
    for name, needed in (("CPU", cpus), ("GPU", gpus)):
        if needed > free.get(name, 0.0) + LEAST:
            return (
                f"needs {needed:g} logical {name}s, and this Ray has {free.get(name, 0.0):g} free of "
                f"{there.get(name, 0.0):g}; use fewer workers or trials at once, or give it more"
            )
    return ""


def free_cpus() -> float:
    """Logical CPUs of the connected Ray that nothing holds."""
    return float(ray.available_resources().get("CPU", 0.0))


@contextmanager
def given_back() -> Iterator[None]:
    """Free what the block reserved where Ctrl-C or SIGTERM ends it: Ray's own way out may not.

    A worker group's reservation outlives the actor that made it, and the actor with which Ray
    Train frees it then asks a dashboard, which an embedded Ray doesn't have.
    """
    held = _reserved()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        for group in _reserved() - held:
            remove_placement_group(PlacementGroup(PlacementGroupID(group)))
        raise


def _reserved() -> set[bytes]:
    """The placement groups of this process's own job, whichever of its actors made them.

    Ray's public table doesn't say whose they are, and on a shared Ray others' are in it as well.
    """
    job = ray.get_runtime_context().get_job_id()
    table = state._connect_and_get_accessor().get_placement_group_table()
    groups = (PlacementGroupTableData.FromString(row) for row in table)
    return {
        group.placement_group_id
        for group in groups
        if group.creator_job_id.hex() == job and group.state != PlacementGroupTableData.REMOVED
    }
