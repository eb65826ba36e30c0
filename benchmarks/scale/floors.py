"""What the machine can do, by which the stages are measured: disk, memory, matrix products."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.models.speed import product_rate

SIZE = 2**28  # bytes that are written and read back


def rates(folder: Path) -> dict[str, float]:
    """Bytes a second read from disk and copied in memory, FLOPs a second of a product; one thread."""
    torch.set_num_threads(1)
    return {
        "disk": disk_rate(folder),
        "memory": memory_rate(),
        "product": product_rate(torch.device("cpu")) * 1e9,
    }


def disk_rate(folder: Path) -> float:
    """Reading a file that isn't in the page cache, as far as the system lets go of it."""
    path = folder / "rate.bin"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        while os.read(descriptor, 2**22):
            pass
        return SIZE / (time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()


def memory_rate() -> float:
    """Bytes copied a second, each read and written once."""
    source, target = np.ones((2, SIZE // 8))
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        taken.append(time.perf_counter() - started)
    return SIZE / min(taken)


def floor(result: dict[str, Any], machine: dict[str, float]) -> float:
    """Seconds below which the stage can't go: its bytes from the disk, and its FLOPs at the product's rate."""
    return float(
        result.get("bytes", 0) / machine["disk"] + result.get("flops", 0) / machine["product"]
    )
