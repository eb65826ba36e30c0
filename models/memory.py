"""Memory that a training step frees stays with the process, for the next step to use."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
NEVER = 2**31 - 1
LARGEST = 32 << 20  # bytes: where glibc's own threshold for mmap stops growing


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within it, freed memory is reused in place of going back to the kernel.

    glibc maps every large tensor anew and unmaps it when it is freed, and the kernel fills each of
    its pages with zeros: in a step of MTMT on 15,360 rows, 83,000 page faults and 40% of its time.
    Numbers are the same with and without. The memory is given back at the end. Where the C library
    isn't glibc, nothing changes.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, NEVER)
    libc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(MMAP_THRESHOLD, LARGEST)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST)
        libc.malloc_trim(ctypes.c_size_t(0))
