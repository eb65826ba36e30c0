"""Locks that processes and threads respect alike, and that a killed process can't keep."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a file, which is made if it is missing.

    Args:
        path: The lock's file; what it guards is for its users to agree on.
        shared: Others may share it; nobody has it alone meanwhile.
        wait: Wait for it as long as it takes.

    Raises:
        BlockingIOError: Somebody else holds it, and ``wait`` is false.
    """
    # Each holder opens the file anew: the lock belongs to the open file, so threads exclude each other.
    with open(path, "w") as file:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        yield
