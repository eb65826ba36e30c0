"""What every step does around its work: say that it started and ended, and tell an error in one line."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from campaigns.errors import UpdraftError, folder_problem
from campaigns.settings import Settings

# The image of the compiled steps; `updraft compile --image` puts another in its place.
IMAGE = "updraft-python:0.1.0"

PROGRESS = "progress.jsonl"


class Step:
    """A running step, which can say how far it is."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.settings = name, settings
        self.file: Path | None = None
        if settings.run:
            self.file = settings.folder("runs", settings.run) / PROGRESS

    def say(self, message: str, *, done: float | None = None) -> None:
        """One line for whoever watches; ``done`` in 0..1 moves the progress bar."""
        self.write("progress", message=message, done=done)

    def write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"step": self.name, "event": event, "at": time.time(), **fields})
        print(line if self.file is None else fields.get("message", event), flush=True)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(line + "\n")


@contextmanager
def running(name: str) -> Iterator[Step]:
    """Frame a step's work; a user's mistake ends it with one sentence and its exit code.

    Raises:
        SystemExit: An UpdraftError was raised inside.
    """
    settings = Settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(name)s: %(message)s")
    # Steps meet the libraries' notes to their own developers; ours are errors in the tests.
    warnings.simplefilter("ignore")
    step = Step(name, settings)
    step.write("started")
    started = time.monotonic()
    try:
        yield step
    except UpdraftError as error:
        step.write("failed", message=str(error), exit_code=error.exit_code)
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        problem = folder_problem(error)
        code, told = (5, str(problem)) if problem else (1, f"{type(error).__name__}: {error}")
        step.write("failed", message=told, exit_code=code)
        raise
    except Exception as error:
        step.write("failed", message=f"{type(error).__name__}: {error}", exit_code=1)
        raise
    step.write("finished", seconds=round(time.monotonic() - started, 2))


def read_progress(file: Path) -> list[dict[str, Any]]:
    """Every whole line that the steps of a run have written so far."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]
