"""A stage in a process of its own, with the most memory and the CPU that it and its children took."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

EVERY = 0.5  # seconds between looks


@dataclass
class Watched:
    """What the looks at a stage's processes saw.

    Attributes:
        peak: Most bytes held at once; shared pages are counted once (PSS).
        looks: (moment, CPU seconds of all processes so far).
    """

    peak: float = 0.0
    looks: list[tuple[float, float]] = field(default_factory=list)
    _cpu: dict[int, float] = field(default_factory=dict)

    def look(self, process: psutil.Process) -> None:
        """Take the processes into account as they are now."""
        held = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    held += each.memory_full_info().pss
                    self._cpu[each.pid] = each.cpu_times().user + each.cpu_times().system
        self.peak = max(self.peak, held)
        self.looks.append((time.time(), sum(self._cpu.values())))

    def cpu(self, began: float, ended: float) -> float:
        """CPU seconds between two moments."""
        moments, used = zip(*self.looks)
        return float(np.interp(ended, moments, used) - np.interp(began, moments, used))


def run(words: Sequence[str], limit: float, log: Path) -> Watched | None:
    """Run a module and watch it to its end; None: it failed or took too long."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=out, stderr=out, env=environment,
            start_new_session=True,
        )  # fmt: skip
        seen, deadline, first = Watched(), time.monotonic() + limit, psutil.Process(process.pid)
        while process.poll() is None:
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None
            seen.look(first)
            time.sleep(EVERY)
    return None if process.returncode else seen


def own_peak() -> float:
    """The most memory that this process ever held, in bytes, by the kernel: nothing is missed between looks.

    Not ``ru_maxrss``, which begins with what the process held that this one was forked from.
    """
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


def _held(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += each.memory_full_info().pss
    return total
