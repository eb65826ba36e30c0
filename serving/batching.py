"""Requests that wait at the same moment are decided together: one model call, one transaction."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Full(Exception):
    """More is waiting than will be done soon."""


@dataclass(eq=False)
class Pending(Generic[Job, Result]):
    """A job, and the future of its result."""

    job: Job
    size: int
    future: Future[Result] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[Job, Result]):
    """One thread that takes all that waits, up to a size, and hands it to a function.

    The function sets every future; where it raises, those that it hasn't set get its error.

    Args:
        handle: Does the work.
        batch: Most that is handled at once, in the jobs' sizes (a larger single job is one batch).
        waiting: Most that may wait.
    """

    def __init__(
        self, handle: Callable[[list[Pending[Job, Result]]], None], *, batch: int, waiting: int
    ) -> None:
        self._handle, self._batch, self._waiting = handle, batch, waiting
        self._queue: deque[Pending[Job, Result]] = deque()
        self._size, self._closed = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
        self._thread.start()

    def submit(self, job: Job, size: int = 1) -> Future[Result]:
        """Queue a job.

        Raises:
            Full: Too much is waiting, or the batcher was closed.
        """
        pending: Pending[Job, Result] = Pending(job, size)
        with self._changed:
            if self._closed or self._size + size > max(self._waiting, size):
                raise Full
            self._queue.append(pending)
            self._size += size
            self._changed.notify()
        return pending.future

    def close(self) -> None:
        """Do what waits, take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while batch := self._take():
            # Whoever asked may have hung up; from here on the result will be there.
            batch = [one for one in batch if one.future.set_running_or_notify_cancel()]
            try:
                self._handle(batch)
            except Exception as error:
                for one in batch:
                    one.fail(error)

    def _take(self) -> list[Pending[Job, Result]]:
        """What waits, in its order; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            taken: list[Pending[Job, Result]] = []
            size = 0
            while self._queue and (not taken or size + self._queue[0].size <= self._batch):
                taken.append(self._queue.popleft())
                size += taken[-1].size
            self._size -= size
            return taken
