"""A training run's epochs, told to whoever started it while it is still running.

Ray Train calls back in its controller, a process of its own on the caller's machine; it appends the
epochs to a file there, which a thread here reads.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import UserCallback

Say = Callable[[str], None]

EVERY = 0.2  # seconds between looks at the file


def quiet(sentence: str) -> None:
    """Say nothing."""


class Progress(UserCallback):
    """Appends what the first worker reports to a file of the controller's machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        if self.path.exists():  # else the caller is gone, or on another machine
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics[0]) + "\n")


@contextmanager
def told(say: Say, epochs: int) -> Iterator[Progress]:
    """Say a sentence an epoch while the block runs; gives the callback that Ray Train needs.

    Args:
        say: Called from a thread of its own.
        epochs: How many there are at most.
    """
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="updraft-") as folder:
        path = Path(folder) / "epochs.jsonl"
        path.touch()
        reader = threading.Thread(target=_read, args=(path, say, epochs, ended), daemon=True)
        reader.start()
        try:
            yield Progress(path)
        finally:
            ended.set()
            reader.join()


def _read(path: Path, say: Say, epochs: int, ended: threading.Event) -> None:
    with path.open(encoding="utf-8") as file:
        partial = ""
        while True:
            last = ended.wait(EVERY)
            *lines, partial = (partial + file.read()).split("\n")
            for line in lines:
                say(sentence(json.loads(line), epochs))
            if last:
                return


def sentence(metrics: dict[str, Any], epochs: int) -> str:
    """One epoch in words.

    >>> validation = {"loss": 0.31234, "effects": 0.1, "score": 0.1}
    >>> sentence({"epoch": 1, "best_epoch": 1, "validation": validation}, 20)
    'epoch 2 of 20: validation loss 0.3123, effects 0.1, the best so far'
    """
    named = {name: value for name, value in metrics["validation"].items() if name != "score"}
    measured = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
    best = metrics["best_epoch"] + 1
    now = metrics["epoch"] + 1
    place = "the best so far" if best == now else f"best in epoch {best}"
    return f"epoch {now} of {epochs}: validation {measured}, {place}"
