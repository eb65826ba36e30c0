"""The process that owns a run's Ray: starts it, says where it is, and takes it down at the end."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from campaigns.settings import Settings
from pipelines.processes import exit_with_parent


def main(file: str) -> None:
    """Start Ray, write its address into ``file``, wait for our parent to end, and take Ray down."""
    import ray

    settings = Settings()
    with tempfile.TemporaryDirectory(
        prefix="updraft-", dir="/tmp", ignore_cleanup_errors=True
    ) as temp:
        # Ray's sockets need a short path (107 bytes), which the home can't promise.
        context = ray.init(
            num_cpus=settings.cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=temp,
        )
        place = Path(file)
        half = place.with_suffix(".half")
        half.write_text(
            json.dumps({"address": context.address_info["address"], "pid": os.getpid()})
        )
        half.rename(place)
        exit_with_parent()
        place.unlink(missing_ok=True)
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
