"""A step keeps a lease on its RayJob: a job that nobody waits for any more ends by itself.

Kubeflow's launcher dies of SIGTERM at once and takes the step along, and a node can vanish with it:
neither leaves time to delete the job (github.com/kubeflow/pipelines/pull/7903).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from campaigns.errors import UpdraftError
from components.exchange import Exchange

BEAT_S = 30.0
LEASE_S = 900.0  # a step that starts again, elsewhere, must be back by then
FILE = "alive.json"
ABANDONED = 75  # EX_TEMPFAIL of sysexits.h


@contextmanager
def kept(exchange: Exchange) -> Iterator[None]:
    """Keep the lease while the block runs."""
    over = threading.Event()

    def beat() -> None:
        while True:
            with suppress(UpdraftError, OSError):  # the next one may do
                exchange.write(FILE, {"beat": time.time_ns()})
            if over.wait(BEAT_S):
                return

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def end_without(exchange: Exchange, told: Callable[[str], None]) -> None:
    """In the job: end this process where the lease isn't renewed for ``LEASE_S``.

    Only changes count, so clocks need not agree; a store that can't be reached counts as none.
    """

    def watch() -> None:
        last, since = None, time.monotonic()
        while time.monotonic() - since < LEASE_S:
            time.sleep(min(BEAT_S, LEASE_S / 10))
            try:
                seen = exchange.read(FILE)
            except (UpdraftError, OSError, ValueError):
                continue
            if seen != last:
                last, since = seen, time.monotonic()
        told(f"nobody has waited for this job for {LEASE_S:.0f} s: it ends itself")
        os._exit(ABANDONED)  # the driver; Ray then ends its workers

    threading.Thread(target=watch, name="lease", daemon=True).start()
