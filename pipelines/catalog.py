"""The pipelines by name."""

from __future__ import annotations

from typing import Any

from pipelines.explore import explore
from pipelines.monitor import monitor
from pipelines.retrain import retrain

PIPELINES: dict[str, Any] = {"retrain": retrain, "monitor": monitor, "explore": explore}
