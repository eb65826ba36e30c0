"""Attach this process to the run's Ray."""

from __future__ import annotations

import os

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings


def attach(settings: Settings) -> None:
    """Connect this process to the run's Ray.

    Raises:
        EnvironmentProblem: There is none, or it can't be reached.
    """
    os.environ.update(settings.environment())  # Ray's token, before Ray is imported
    import ray

    if ray.is_initialized():
        return
    if settings.ray_address is None:
        raise EnvironmentProblem("no Ray to attach to; UPDRAFT_RAY_ADDRESS names one")
    try:
        ray.init(
            address=settings.ray_address,
            log_to_driver=False,
            logging_level="ERROR",
            namespace="updraft",
        )
    except ConnectionError as error:
        raise EnvironmentProblem(
            f"the Ray at {settings.ray_address} (UPDRAFT_RAY_ADDRESS) can't be reached"
        ) from error
