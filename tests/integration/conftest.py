"""What the tests against real services share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns.settings import QUIET


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray of four logical CPUs that all tests of the session share."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}.items():
            patch.setenv(name, value)
        folder = Path(
            tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        )  # sockets: 107 characters at most
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            _temp_dir=str(folder),
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
