"""Ctrl-C while Ray Train or Ray Tune is at work: they stop their processes, and then so do we."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C end the block with KeyboardInterrupt, and mean afterwards what it meant before.

    Ray Train puts a handler of its own in place of ours, which stops the workers, ends in a
    SystemExit (of 0 or of 1, by where the signal found the process) and stays behind. SIGTERM
    ends in a SystemExit as well, so the code doesn't tell which it was: the signals do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    with _arrivals() as arrived:
        try:
            yield
        except SystemExit as error:
            if signal.SIGINT not in arrived():
                raise
            raise KeyboardInterrupt from error
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _arrivals() -> Iterator[Callable[[], bytes]]:
    """The numbers of the signals that come during the block, whoever handles them."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def arrived() -> bytes:
        try:
            return os.read(reader, 4096)
        except BlockingIOError:
            return b""

    try:
        yield arrived
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
