"""Memory of training: steps reuse what steps before them freed, and the end gives it back."""

import gc
import platform
import resource
from pathlib import Path

import pytest
import torch

from models.memory import kept_memory

TENSOR = 16 << 20  # bytes

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is tuned"
)


def work() -> None:
    """Tensors that live at the same time, as the activations of a step do."""
    kept = [torch.ones(TENSOR // 4) for _ in range(8)]
    assert sum(each.sum() for each in kept) == 8 * TENSOR // 4


def faults(times: int = 5) -> int:
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_steps_reuse_memory_and_the_end_gives_it_back() -> None:
    with kept_memory():
        faults()  # until the heap is as large as it gets
        kept, held = faults(), resident()
    pages = 5 * 8 * TENSOR // resource.getpagesize()
    assert kept < pages / 20
    assert resident() < held - 4 * TENSOR


def test_memory_is_given_back_after_an_error() -> None:
    held = []

    def fail() -> None:
        work()
        held.append(resident())
        raise ValueError("a step failed")

    with pytest.raises(ValueError, match="a step failed"), kept_memory():
        fail()
    assert resident() < held[0] - 4 * TENSOR
