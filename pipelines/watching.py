"""Showing a run's progress: a live list of steps on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

EVENTS_S = 20.0  # at most one plain line of a step's progress in so many seconds


class Watcher(Protocol):
    """Told of every line that a run's steps write."""

    def tell(self, event: Mapping[str, Any]) -> None: ...


@contextmanager
def watching(console: Console, title: str) -> Iterator[Watcher]:
    """A watcher for this console."""
    if not console.is_terminal:
        yield Lines(console, title)
        return
    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"))
    times = TimeElapsedColumn()
    with Progress(*columns, times, console=console) as progress:
        console.print(f"[bold]{title}")
        yield Live(progress)


@contextmanager
def phase(console: Console, title: str, step: str) -> Iterator[Callable[[str, float | None], None]]:
    """Work that is no pipeline step, shown in the same way; yields what to call with news of it."""
    with watching(console, title) as watcher:
        watcher.tell({"step": step, "event": "started"})
        started = time.monotonic()

        def say(message: str, done: float | None = None) -> None:
            watcher.tell({"step": step, "event": "progress", "message": message, "done": done})

        yield say
        seconds = time.monotonic() - started
        watcher.tell({"step": step, "event": "finished", "seconds": seconds})


class Lines:
    """One line when a step starts, now and then while it works, and when it ends."""

    def __init__(self, console: Console, title: str) -> None:
        self.console, self.started, self.last = console, time.monotonic(), 0.0
        self.say(f"{title}")

    def say(self, text: str) -> None:
        elapsed = time.monotonic() - self.started
        self.console.print(
            f"[{elapsed:5.0f} s] {text}", highlight=False, markup=False, soft_wrap=True
        )
        self.last = time.monotonic()

    def tell(self, event: Mapping[str, Any]) -> None:
        name = title_of(event["step"])
        if event["event"] == "started":
            self.say(f"{name} ...")
        elif event["event"] == "finished":
            self.say(f"{name}: done in {event['seconds']:.0f} s")
        elif event["event"] == "progress" and (
            event.get("done") is None or time.monotonic() - self.last > EVENTS_S
        ):
            self.say(f"  {event['message']}")


class Live:
    """A row a step, with its newest message."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.rows: dict[str, Any] = {}

    def tell(self, event: Mapping[str, Any]) -> None:
        step = event["step"]
        if event["event"] == "started" or step not in self.rows:
            self.rows[step] = self.progress.add_task(title_of(step), total=1.0)
        row = self.rows[step]
        if event["event"] == "progress":
            text = f"{title_of(step)}  [dim]{event['message']}"
            self.progress.update(row, description=text, completed=event.get("done") or 0.0)
        elif event["event"] == "finished":
            self.progress.update(row, completed=1.0)
        elif event["event"] == "failed":
            self.progress.update(row, description=f"[red]{title_of(step)}: failed")
            self.progress.stop_task(row)


def title_of(step: str) -> str:
    """``train_model`` as people read it: ``Train model``."""
    return step.replace("_", " ").capitalize()
