"""The process that runs one pipeline through KFP's local runner: every step a subprocess of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

from pipelines.processes import exit_with_parent


def main(pipeline: str, arguments: str, root: str) -> None:
    """Run a pipeline by name with the arguments in a JSON file; exit 1 if a step failed."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # KFP warns that an image's name doesn't say Python; the steps run in this interpreter anyway.
    warnings.simplefilter("ignore")
    from kfp import local

    from pipelines.catalog import PIPELINES

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
    try:
        PIPELINES[pipeline](**json.loads(Path(arguments).read_text()))
    except RuntimeError as error:
        print(f"pipeline failed: {error}", flush=True)
        sys.exit(1)


def _die_with_parent() -> None:
    exit_with_parent()
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
