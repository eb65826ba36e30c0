"""On what a benchmark ran."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console


def machine(*packages: str) -> str:
    """Processor, memory, versions and date, in one line."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in info.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {os.cpu_count()} x {(models or [platform.machine()])[0]}, "
        f"{memory:.0f} GiB; Python {platform.python_version()}, {versions}"
    )


def wide_console() -> Console:
    """A console whose tables fit: where nobody looks at a terminal, 120 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
