"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Heed Ctrl-C where a shell left it ignored: Ray's workers inherit that, and then can't be stopped."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets (UPDRAFT_SHARED_DATA, else shared/data beside the repository)."""
    place = Path(os.environ.get("UPDRAFT_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not place.is_dir():
        pytest.skip(f"real datasets: no folder {place}; set UPDRAFT_SHARED_DATA")
    return place
