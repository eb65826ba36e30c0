"""Refuse work that Ray would never start for want of CPUs or GPUs: it waits without a word."""

from __future__ import annotations

import time

import ray

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
